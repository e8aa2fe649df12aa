"""A worker class that serves sockets which it has asked for, and clients who ask all the while."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.chaos.orders import ask
from tests.support import Sengu
from tests.system.jobs import ENVIRONMENT, Jobs
from tests.system.load import Address, Load
from tests.system.load import ask as ask_at
from tests.system.puppets import wait_until
from tests.system.test_configure import configure, put, wait_for

WORKERS = 2
SCRIPT = """
import json, os, select, signal, sys, time
from sengu.posix.notify import notify
from sengu.work.sockets import SocketManager

def open_all(sockets, config):
    listeners = [sockets.listen_tcp("127.0.0.1", config["port"]), sockets.listen_unix("socket")]
    for listener in listeners:
        listener.setblocking(False)
    return listeners

def serve(listeners, stopping):
    poll = select.poll()
    for one in (*listeners, stopping):
        poll.register(one, select.POLLIN)
    ready = []
    while stopping not in ready:
        ready = [fd for fd, _ in poll.poll()]
        for listener in listeners:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                continue
            with client:
                client.recv(100)
                time.sleep(0.01)  # its work
                client.sendall(b"%d %d" % (os.getpid(), os.fstat(listener.fileno()).st_ino))

class Serving(sengu.Worker):
    says_ready = True
    reload_signal = signal.SIGHUP

    def setup(self):
        self.listeners = open_all(self.sockets, self.config)
        self.extra = []

    def run(self):
        serve(self.listeners, self.stopping.fileno())

    def command(self):
        return [sys.executable, "jobs.py", json.dumps(dict(self.config))]

    def reload(self):
        self.extra += map(self.sockets.listen_unix, self.config["extra"])
        self.log.info("goes on with %s", self.config["n"])

if __name__ == "__main__":
    stopping, end = os.pipe()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: os.write(end, b"."))
    signal.signal(signal.SIGHUP, lambda *_: print("hears of it", flush=True))
    listeners = open_all(SocketManager(), json.loads(sys.argv[1]))
    notify("READY=1")
    serve(listeners, stopping)
"""


class Answer(NamedTuple):
    """The process that has answered, and the inode of the socket that it has accepted from."""

    pid: int
    socket: int


class Serving:
    """An instance of that class; with `kind` spawn it is its programs that serve."""

    def __init__(
        self, sengu: Sengu, directory: Path, port: int, kind: str, environment: Mapping[str, str]
    ) -> None:
        """When it is ready."""
        self.extra = directory / "extra"
        self._socket = directory / "socket"
        self._jobs = Jobs(directory)
        self._port = port
        self._jobs.write(SCRIPT)
        self.configure(1)
        options = ("--kind", kind, "--config", "jobs.json", "-w", str(WORKERS))
        environment = {**ENVIRONMENT, **environment}
        instance = sengu.work("jobs.py:Serving", *options, cwd=directory, env=environment)
        self.instance = instance.wait_ready()

    def clients(self) -> "Clients":
        return Clients(("127.0.0.1", self._port), str(self._socket))

    def configure(self, n: int, *extra: Path) -> None:
        """What is in the file from now on. Workers ask for `extra` sockets when it changes."""
        found = {"port": self._port, "n": n, "extra": list(map(str, extra))}
        put(self._jobs, "jobs.json", json.dumps(found))

    def status(self) -> dict[str, Any]:
        """Of whichever server there is next."""
        return dict(ask(self.instance, "GET", "/v1/status").body)

    def pids(self) -> set[int]:
        return {worker["pid"] for worker in self.status()["workers"]}

    def has_sockets(self, generation: int, *extra: Path) -> bool:
        """Whether the server knows of these, which that generation has asked for, and no others."""
        names = {f"127.0.0.1:{self._port}", *map(str, (self._socket, *extra))}
        found = {one["address"]: one["generations"] for one in self.status()["managed"]}
        return found == {name: [generation] for name in names}

    def check_configure(self, n: int, *extra: Path) -> None:
        """All workers go on, with what is in the file then."""
        before = self.pids()
        self.configure(n, *extra)
        assert configure(self.instance) == "workers have the new configuration"
        self.wait_for_configuration(n)
        assert self.pids() == before

    def wait_for_configuration(self, n: int) -> None:
        wait_for(self.instance, f"goes on with {n}$", WORKERS)

    def check_reload(self) -> None:
        """A second generation has the sockets; what only the first has asked for is closed."""
        reload = self.instance.cli("reload")
        assert reload.returncode == 0, reload.stderr
        wait_until(lambda: self.has_sockets(2), "the end of the first generation")
        assert not self.extra.exists()

    def check_end(self) -> None:
        """Nothing is left; the fixture looks for processes."""
        assert self.instance.stop() == 0
        assert not self._socket.exists()
        assert not self.extra.exists()


class Clients:
    """Who ask at each of the addresses, from `with` to its end. Nobody may be refused or lost."""

    def __init__(self, *addresses: Address) -> None:
        self._loads = [Load(address, _ask, clients=1) for address in addresses]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for load in self._loads:
            self._stack.enter_context(load)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if kind is None:
            assert [load.failures for load in self._loads] == [[]] * len(self._loads)
            for load in self._loads:
                sockets = {_read(answer).socket for answer in load.answers}
                assert len(sockets) == 1, "it is the same one all the time"

    def wait_for_all(self, times: int = 10) -> None:
        """So many more answers of each."""
        for load in self._loads:
            load.wait_for_any(times)


def _ask(address: Address) -> str:
    answer = ask_at(address, b"?").decode()
    if not answer:
        raise ConnectionError("no answer")
    return answer


def _read(answer: str) -> Answer:
    return Answer(*map(int, answer.split()))
