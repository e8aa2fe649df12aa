"""Applications for the tests of `sengu serve`, and clients that ask them."""

import http.client
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support import WAIT_SECONDS, Instance, Sengu
from tests.system.load import Address, Load
from tests.system.puppets import Gate, children, wait_until, workers

APPS = Path(__file__).with_name("apps")
CHECKOUT = Path(__file__).parents[2]
# Two deploys in one second would else find the byte code of the first. And buffers are as usual.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": ""}


class Site:
    """A directory with the applications `plain` and `hooked`, and the version that they tell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("plain.py", "hooked.py"):
            shutil.copy(APPS / name, directory)
        self.release("one")

    def release(self, version: str) -> None:
        self.write("version.py", f"TEXT = {version!r}\n")

    def write(self, name: str, source: str) -> None:
        # By rename: who imports it just now gets the old one or the new one.
        new = self.directory / f"{name}.new"
        new.write_text(source)
        new.rename(self.directory / name)

    def gate(self, name: str = "gate") -> Gate:
        """Where requests for `/wait` wait."""
        return Gate(self.directory, name)


def serve(
    sengu: Sengu,
    site: Site,
    port: int,
    *options: str,
    target: str = "plain:app",
    prefix: tuple[str, ...] = (),
) -> Instance:
    """An instance of an application of the site on `port`, when it is ready."""
    args = (target, "--listen", f"127.0.0.1:{port}", *options)
    return sengu.serve(*args, cwd=site.directory, env=ENVIRONMENT, prefix=prefix).wait_ready()


class Answer(NamedTuple):
    """Who has answered, and whether the connection ends with it."""

    version: str
    generation: int
    slot: int
    pid: int
    closes: bool


class Response(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str


class Client:
    """One connection, kept alive; another when the server has announced its end."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)

    def connect(self) -> None:
        """Connect now, and say nothing."""
        self._connection.connect()

    def fetch(
        self,
        path: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
    ) -> Response:
        """Raises OSError or http.client.HTTPException when there is no proper answer."""
        method = method or ("GET" if body is None else "POST")
        self._connection.request(method, path, body, dict(headers or {}))
        with self._connection.getresponse() as response:
            text = response.read().decode()
            return Response(response.status, response.headers, text)

    def ask(self, path: str = "/") -> Answer:
        response = self.fetch(path)
        if response.status != http.client.OK:
            raise ConnectionError(f"{response.status}: {response.text}")
        return parse_answer(response)

    def send(self, path: str) -> None:
        """A request whose answer `receive` waits for."""
        self._connection.request("GET", path)

    def receive(self) -> Answer:
        with self._connection.getresponse() as response:
            text = response.read().decode()
            return parse_answer(Response(response.status, response.headers, text))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def parse_answer(response: Response) -> Answer:
    version, *numbers = response.text.split()
    generation, slot, pid = map(int, numbers)
    closes = response.headers.get("Connection", "").lower() == "close"
    return Answer(version, generation, slot, pid, closes)


def fetch(
    port: int,
    path: str = "/",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> Response:
    """One request on a connection of its own."""
    with Client(port) as client:
        return client.fetch(path, body, headers, method)


def ask(port: int, path: str = "/") -> Answer:
    with Client(port) as client:
        return client.ask(path)


class _Keeping:
    """Asks for the version, on one connection for each thread that asks."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.clients: list[Client] = []

    def __call__(self, address: Address) -> str:
        if not hasattr(self._local, "client"):
            assert not isinstance(address, str)
            self._local.client = Client(address[1])
            self.clients.append(self._local.client)
        client: Client = self._local.client
        try:
            return client.ask().version
        except (OSError, http.client.HTTPException) as problem:
            client.close()
            raise ConnectionError(repr(problem)) from problem


@contextmanager
def load(port: int, clients: int = 2) -> Iterator[Load]:
    """Clients with a connection each that they keep; no request may fail."""
    keeping = _Keeping()
    try:
        with Load(("127.0.0.1", port), keeping, clients) as running:
            yield running
    finally:
        for client in keeping.clients:
            client.close()
    assert running.failures == []


def connect(port: int, request: str = "") -> socket.socket:
    """A connection on which `request`, its lines ended by \\n, was sent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    client.sendall(request.replace("\n", "\r\n").encode())
    return client


def get_request(path: str, *fields: str) -> str:
    return "\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""))


def read_all(client: socket.socket) -> bytes:
    """Up to the end of the connection."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ")


def wait_watched(instance: Instance) -> None:
    """Until `--reload` sees changes: proc_pid_fdinfo(5) has a line for each directory watched."""

    def is_watched() -> bool:
        found = ""
        for pid in children(instance.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # a descriptor, or it, is gone
                if "sengu.cli.watch" in title(pid):
                    found += "".join(f.read_text() for f in Path(f"/proc/{pid}/fdinfo").iterdir())
        return "inotify wd:" in found

    wait_until(is_watched)


def reload(instance: Instance, *options: str) -> None:
    """Deploy, and wait until old workers take nothing new: they are asked to when it succeeds."""
    done = instance.cli("reload", *options)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not any(_takes_new(one["pid"]) for one in _old(instance)))


def _old(instance: Instance) -> list[dict[str, Any]]:
    found = workers(instance)
    newest = max(one["generation"] for one in found)
    return [one for one in found if one["generation"] < newest]


def _takes_new(pid: int) -> bool:
    try:
        said = title(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return said != "" and not said.endswith(": draining")  # a zombie has none


def fork_servers(instance: Instance) -> list[int]:
    found = []
    for pid in children(instance.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if " fork server gen " in title(pid):
                found.append(pid)
    return found


def fork_server(instance: Instance) -> int:
    (pid,) = fork_servers(instance)
    return pid


def environment_of(pid: int) -> dict[str, str]:
    """What the process got at its start."""
    pairs = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    return {name: text for name, equals, text in (pair.partition("=") for pair in pairs) if equals}


def status_of(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}
