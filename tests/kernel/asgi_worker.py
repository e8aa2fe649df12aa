"""A worker that serves an ASGI application, for the tests of this tier: the engine in a child.

The application is whatever the test has written; it shares no memory with the test, so it says what
it does by `child.tell`.
"""

import contextlib
import http.client
import mmap
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sengu.http.asgi.engine import AsgiApp
from sengu.http.asgi.types import App, Message, Receive, Scope, Send
from sengu.http.tls import load_context
from sengu.model.application import Application
from sengu.model.web import WebOptions
from sengu.wire.scoreboard import ENDING, LINE_BYTES, Line, read_line
from sengu.worker.board import Board
from sengu.worker.engine import LoadError
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime, Stopping
from tests.kernel.children import Child
from tests.support import UnixConnection

PATIENCE_SECONDS = 20.0
OPTIONS = WebOptions("tests:app")
APPLICATION = Application(engine="sengu.http.engine", target="tests:app", grace_seconds=10.0)

MakeApp = Callable[[Child], App]
Handler = Callable[[Scope, Receive, Send], Any]


class _Runtime(Runtime):
    """Tells the test what the server would be told."""

    def __init__(self, child: Child, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._child = child
        self.on_ready.append(lambda: child.tell("ready"))
        self.rouse = self._rouse

    def ready(self, *, tell: bool = True) -> None:
        super().ready(tell=tell)
        self.dozing = True

    def _rouse(self) -> None:
        if self.dozing:
            self.dozing = False
            self._child.tell("roused")

    def calm(self) -> None:
        super().calm()
        if self.stopping is not Stopping.NO:
            self._child.tell(f"told {self.stopping.name}")

    def worn(self, reason: str) -> None:
        self._child.tell(f"worn {reason}")


class Worker:
    """The child and the ways to reach it. Made by `serving`."""

    def __init__(self, child: Child, listener: socket.socket, memory: mmap.mmap) -> None:
        self.child = child
        self.listener = listener
        self.clients = contextlib.ExitStack()
        self._memory = memory

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def line(self) -> Line:
        """What the worker tells on the scoreboard."""
        return read_line(memoryview(self._memory), 0)

    def show_ending(self) -> None:
        """As the server does, when the service is to end."""
        memoryview(self._memory)[ENDING] = 1

    def http(self) -> http.client.HTTPConnection:
        """A client; it connects with its first request, and is closed with the worker."""
        client: http.client.HTTPConnection
        if self.listener.family == socket.AF_UNIX:
            client = UnixConnection(Path(self.listener.getsockname()), PATIENCE_SECONDS)
        else:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        self.clients.callback(client.close)
        return client

    def connect(self) -> socket.socket:
        client = socket.socket(self.listener.family)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(self.listener.getsockname())
        return client

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def accept(self) -> socket.socket:
        """Take a connection in that the worker has left to others."""
        select.select([self.listener], [], [], PATIENCE_SECONDS)
        return self.listener.accept()[0]

    def retire(self) -> None:
        """Return when it drains."""
        self.signal(signal.SIGTERM)
        self.child.wait_to_hear("told RETIRE")

    def stop(self) -> None:
        """Return when it drains."""
        self.signal(signal.SIGQUIT)
        self.child.wait_to_hear("told STOP")

    def wait(self) -> None:
        """Wait until it has drained."""
        self.child.wait_to_hear("drained")


def body_of(options: WebOptions, application: Application, make_app: MakeApp) -> Any:
    """What the child does, up to its listener and its memory."""

    def live(child: Child, listener: socket.socket, memory: mmap.mmap) -> None:
        board = Board(memoryview(memory), 0, 1)
        identity = Identity("web", 1, 0, os.getpid())
        runtime = _Runtime(child, identity, application, [listener], board)
        runtime.handle_signals()
        # What is written to stderr is a test's business too.
        sys.stderr = _Said(child)
        try:
            tls = load_context(options.tls) if options.tls is not None else None
            AsgiApp(make_app(child), None, options, tls).run(runtime)
        except LoadError as error:
            child.tell(f"load error {error}: {' | '.join(error.details.splitlines())}")
            return
        child.tell("drained")

    return live


class _Said:
    """Stderr, line by line to the test."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self._child.tell(f"stderr {line}")
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


@contextlib.contextmanager
def started(
    make_app: MakeApp,
    options: WebOptions = OPTIONS,
    application: Application = APPLICATION,
    path: Path | None = None,
) -> Iterator[Worker]:
    """A worker that may not be ready yet. `path` is that of a UNIX socket."""
    live = body_of(options, application, make_app)
    memory = mmap.mmap(-1, 2 * LINE_BYTES)
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
    listener.setblocking(False)
    with listener, Child(lambda child: live(child, listener, memory)) as child:
        worker = Worker(child, listener, memory)
        with worker.clients:
            yield worker


@contextlib.contextmanager
def serving(
    make_app: MakeApp,
    options: WebOptions = OPTIONS,
    application: Application = APPLICATION,
    path: Path | None = None,
) -> Iterator[Worker]:
    """A worker that is ready."""
    with started(make_app, options, application, path) as worker:
        worker.child.wait_to_hear("ready")
        yield worker


def app(handle: Handler) -> App:
    """An application without a lifespan: `handle` has HTTP and websockets."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await handle(scope, receive, send)

    return application


async def respond(
    send: Send, body: bytes = b"hello", status: int = 200, *headers: tuple[bytes, bytes]
) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def begin(send: Send, first: bytes) -> None:
    """The beginning of a response of unknown length."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": first, "more_body": True})


async def read_body(receive: Receive) -> bytes:
    pieces = []
    while True:
        message: Message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def receive_all(client: socket.socket) -> bytes:
    """Everything until the other side closes."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def receive_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def ends(client: socket.socket) -> bool:
    """Whether the other side closes without another byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return False


def is_silent(client: socket.socket) -> bool:
    """Whether nothing has come, and no end, so far."""
    return not select.select([client], [], [], 0)[0]
