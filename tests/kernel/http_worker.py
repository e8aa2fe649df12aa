"""A worker that serves a WSGI application, for the tests of this tier: the engine in a thread.

The application is a function of the test, with which it shares everything. The engine gets a
runtime made by hand; what it would tell the server is kept for the test to see.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from sengu.http.engine import WsgiApp
from sengu.http.tls import load_context
from sengu.model.application import Application, Wear
from sengu.model.web import WebOptions
from sengu.wire.scoreboard import ENDING, LINE_BYTES
from sengu.worker.board import Board
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime, Stopping

PATIENCE_SECONDS = 20.0
OPTIONS = WebOptions("tests:app")
_NO_WEAR = Wear()

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Answer(msgspec.Struct):
    """What came back: `fields` has lower-case names, `body` is as framed by Content-Length or
    chunks, `raw_head` is all before it."""

    status: int
    fields: dict[str, str]
    body: bytes
    raw_head: bytes


class Client:
    """A socket and an HTTP parser that takes nothing for granted."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes, *, is_head: bool = False) -> Answer:
        self.send(data)
        return self.answer(is_head=is_head)

    def get(self, path: str = "/", *fields: str) -> Answer:
        lines = [f"GET {path} HTTP/1.1", "Host: x", *fields]
        return self.ask(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._buffer!r}")
        self._buffer += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._fill()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def answer(self, *, is_head: bool = False) -> Answer:
        head = self._until(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        protocol, status, _reason = line.split(" ", 2)
        assert protocol == "HTTP/1.1"
        pairs = [one.split(": ", 1) for one in lines]
        fields = {name.lower(): value for name, value in pairs}
        body = b""
        if is_head or status in {"204", "304"} or status.startswith("1"):
            pass
        elif fields.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._exactly(2) == b"\r\n"
        elif "content-length" in fields:
            body = self._exactly(int(fields["content-length"]))
        else:
            body = self.rest()
        return Answer(int(status), fields, body, head)

    def rest(self) -> bytes:
        """Everything until the server closes; ConnectionResetError if it does so rudely."""
        with contextlib.suppress(EOFError):
            while True:
                self._fill()
        found, self._buffer = self._buffer, b""
        return found


class Worker:
    """The thread, its runtime, and the ways to reach it. Made by `serving`."""

    def __init__(
        self, loaded: WsgiApp, runtime: Runtime, listener: socket.socket, memory: bytearray
    ) -> None:
        self.runtime = runtime
        self._memory = memory
        self.listener = listener
        self.worn: list[str] = []
        self.is_ready = threading.Event()
        self.clients = contextlib.ExitStack()
        self._thread = threading.Thread(target=loaded.run, args=(runtime,), daemon=True)
        runtime.on_ready.append(self.is_ready.set)
        runtime.worn = self.worn.append  # type: ignore[assignment, method-assign]

    def start(self) -> None:
        self._thread.start()
        assert self.is_ready.wait(PATIENCE_SECONDS)

    def show_ending(self) -> None:
        """As the server does, when the service is to end."""
        self._memory[ENDING] = 1

    def connect(self) -> Client:
        sock = socket.socket(self.listener.family)
        self.clients.callback(sock.close)
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(self.listener.getsockname())
        return Client(sock)

    def wait(self) -> None:
        """Wait until it has drained."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def is_running(self) -> bool:
        return self._thread.is_alive()


def make_memory(application: Application) -> bytearray:
    return bytearray(LINE_BYTES * (application.lanes + 1))


def make_runtime(
    application: Application, listener: socket.socket, memory: bytearray | None = None
) -> Runtime:
    memory = make_memory(application) if memory is None else memory
    board = Board(memoryview(memory), 0, application.lanes)
    return Runtime(Identity("web", 1, 0, 1), application, [listener], board)


@contextlib.contextmanager
def serving(
    app: App,
    options: WebOptions = OPTIONS,
    *,
    path: Path | None = None,
    wear: Wear = _NO_WEAR,
    grace_seconds: float = 10.0,
) -> Iterator[Worker]:
    """A worker that is ready; stopped at the end. `path` is that of a UNIX socket."""
    application = Application(
        engine="sengu.http.engine",
        target="tests:app",
        lanes=options.threads,
        wear=wear,
        grace_seconds=grace_seconds,
    )
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
    listener.setblocking(False)
    with listener:
        tls = load_context(options.tls) if options.tls is not None else None
        memory = make_memory(application)
        runtime = make_runtime(application, listener, memory)
        worker = Worker(WsgiApp(app, None, options, tls), runtime, listener, memory)
        worker.start()
        with worker.clients:
            yield worker
        worker.runtime.stop(Stopping.STOP)
        worker.wait()
