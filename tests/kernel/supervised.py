"""A supervisor under test: the real file, with the test in the place of each of its servers.

The server that it starts is a puppet, which passes its socket on to the test and waits. So the test
says and hears what a server would, and may kill the process at any moment.
"""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import sengu
from sengu.posix import packets
from sengu.posix.title import ROOM
from sengu.wire import supervisor as wire
from tests.processes import become_subreaper, descendants, kill_descendants
from tests.support import environment

PATIENCE_SECONDS = 20.0
MAIN = Path(sengu.__file__).parent / "supervisor" / "__main__.py"

PUPPET = """
import array, os, signal, socket, sys
strings = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
strings.connect(os.environ["PUPPETEER"])
rights = array.array("i", [int(sys.argv[1])])
text = f"{os.getpid()} {os.getpgid(0)} {sorted(map(int, os.listdir('/proc/self/fd')))}"
strings.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
os.close(int(sys.argv[1]))
order = strings.recv(100)
if order == b"be deaf":
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    strings.send(b"deaf")
    order = strings.recv(100)
os._exit(int(order or 0))
"""

Message = TypeVar("Message", bound=wire.FromSupervisor)


class Holding(NamedTuple):
    """What a server finds in the store. `fd` is None for a mere note."""

    note: str
    fd: int | None


class Kin(NamedTuple):
    """A process that a server finds."""

    pid: int
    status: int | None
    pidfd: int


class Inherited(NamedTuple):
    """All that a server hears before `begin`."""

    main_pid: int
    is_trial: bool
    held: Mapping[str, Holding]
    kin: Mapping[str, Kin]
    signals: Sequence[int]


class Server:
    """One life of the server. Descriptors that it was sent are closed with it."""

    def __init__(self, strings: socket.socket) -> None:
        self._strings = strings
        data, (fd,) = packets.receive(strings)
        pid, group, fds = data.decode().split(" ", 2)
        self.pid = int(pid)
        self.group = int(group)
        self.fds = fds
        self.pidfd = os.pidfd_open(self.pid)
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(PATIENCE_SECONDS)
        self._received: list[int] = []

    def hear_any(self) -> tuple[wire.FromSupervisor, list[int]]:
        data, fds = packets.receive(self.socket)
        assert data, "the supervisor is gone"
        self._received += fds
        return wire.decode_from(data), fds

    def hear(self, kind: type[Message]) -> Message:
        """The next message, which has to be of that kind."""
        return self.hear_with(kind)[0]

    def hear_with(self, kind: type[Message]) -> tuple[Message, list[int]]:
        message, fds = self.hear_any()
        assert isinstance(message, kind), message
        return message, fds

    def hears_nothing(self) -> bool:
        """Nothing more than what was heard. After an answer, as answers come in order."""
        return not select.select([self.socket], [], [], 0)[0]

    def inherit(self) -> Inherited:
        hello = self.hear(wire.Hello)
        assert hello.version == wire.VERSION
        held: dict[str, Holding] = {}
        kin: dict[str, Kin] = {}
        signals = []
        while True:
            message, fds = self.hear_any()
            match message:
                case wire.Holding(name, note):
                    held[name] = Holding(note, fds[0] if fds else None)
                case wire.Child(key, pid, status):
                    kin[key] = Kin(pid, status, fds[0])
                case wire.Signal(number):
                    signals.append(number)
                case _:
                    assert isinstance(message, wire.Begin), message
                    return Inherited(hello.main_pid, hello.is_trial, held, kin, signals)

    def say(self, message: wire.ToSupervisor, *fds: int) -> None:
        packets.send(self.socket, wire.encode_to(message), fds)

    def spawn(
        self, key: str, *argv: str, placed: Mapping[int, int] | None = None, **how: Any
    ) -> None:
        """Ask for a process, whose stdin to stderr are the supervisor's if not `placed`."""
        placed = placed or {}
        variables = how.pop("environment", {"PATH": os.environ["PATH"]})
        document = wire.Document(argv, variables, tuple(placed), **how)
        fd = os.memfd_create("document")
        os.write(fd, wire.encode_document(document))
        self.say(wire.Spawn(key), fd, *placed.values())
        os.close(fd)

    def spawned(self, key: str, *argv: str, **how: Any) -> Kin:
        """A process, when it lives."""
        self.spawn(key, *argv, **how)
        message, (pidfd,) = self.hear_with(wire.Spawned)
        assert message.key == key
        return Kin(message.pid, None, pidfd)

    def be_deaf(self) -> None:
        """Ignore ABRT from now on."""
        self._strings.send(b"be deaf")
        assert self._strings.recv(100) == b"deaf"

    def exit(self, status: int = 0) -> None:
        self._strings.send(str(status).encode())
        self.wait()
        self.socket.close()

    def kill(self) -> None:
        """KILL, with whatever it has not read."""
        self.socket.close()
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert ended(self.pidfd), "the server lives"

    def close(self) -> None:
        self.socket.close()
        self._strings.close()
        for fd in (self.pidfd, *self._received):
            os.close(fd)


class Supervised:
    """Runs the supervisor. Use it as a context manager; nothing of it may be left in the end."""

    def __init__(
        self,
        directory: Path,
        *,
        held: Mapping[str, int] | None = None,
        main: Path = MAIN,
        expects_servers: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        become_subreaper()
        self._known = descendants()
        self._held = held or {}
        self.main = main
        self.stderr = directory / "stderr"
        script = directory / "puppet.py"
        script.write_text(PUPPET)
        self._stage = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stage.bind(str(directory / "stage"))
        self._stage.listen(10)
        self._stage.settimeout(PATIENCE_SECONDS)
        self._servers: list[Server] = []
        if not expects_servers:
            script.write_text("import sys; sys.exit(3)")
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(main), "name=under-test", f"server={script}"),
                    *(f"{name}={fd}" for name, fd in self._held.items()),
                    ROOM,
                ],
                env=environment({"PUPPETEER": str(directory / "stage"), **(variables or {})}),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=list(self._held.values()),
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def server(self) -> Server:
        """The next life of the server, from its birth."""
        strings, _ = self._stage.accept()
        strings.settimeout(PATIENCE_SECONDS)
        server = Server(strings)
        self._servers.append(server)
        return server

    def begun(self) -> Server:
        """The next life of the server, after its `begin`."""
        server = self.server()
        server.inherit()
        return server

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code."""
        assert ended(self.pidfd), f"the supervisor lives:\n{self.log}"
        return self.process.wait()

    @property
    def log(self) -> str:
        return self.stderr.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        for server in self._servers:
            server.close()
        self._stage.close()
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)
        if problem is not None:
            print(self.log)
        for pid in descendants() - self._known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kill_descendants(self._known)


def ended(pidfd: int, seconds: float = PATIENCE_SECONDS) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def read_to_end(fd: int) -> str:
    """What comes through a pipe until all its writers are gone. Closes it."""
    with open(fd) as stream:
        return stream.read()
