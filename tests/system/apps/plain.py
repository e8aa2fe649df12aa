"""Does what a request asks for, as WSGI and as ASGI application. Beside it is `version.py`."""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from version import TEXT  # type: ignore[import-not-found]

BLOCK = bytes(range(256)) * 256
kept: list[bytes] = []
barrier = threading.Barrier(4)


def who(_query: str = "") -> str:
    return f"{TEXT} {os.environ['SENGU_GENERATION']} {os.environ['SENGU_SLOT']} {os.getpid()}"


def wait(gate: str) -> str:
    """Until somebody has opened the FIFO for writing, and closed it."""
    with open(gate, "rb") as stream:
        stream.read()
    return who()


def meet(_query: str) -> str:
    """Until four are here at the same time."""
    barrier.wait(20)
    return who()


def steady(_query: str) -> str:
    """The same from every worker: `ab` takes another length for a failure."""
    return "steady"


def grow(mebibytes: str) -> str:
    kept.append(b"x" * (int(mebibytes) << 20))
    return who()


def fail(_query: str) -> str:
    raise RuntimeError("as asked for")


def leave(status: str) -> str:
    os._exit(int(status))


def make(path: str) -> str:
    with open(path, "x"):
        return who()


def frozen(_query: str) -> str:
    return str(gc.get_freeze_count())


WAYS: dict[str, Callable[[str], str]] = {
    "/": who,
    "/wait": wait,
    "/meet": meet,
    "/steady": steady,
    "/grow": grow,
    "/fail": fail,
    "/leave": leave,
    "/make": make,
    "/frozen": frozen,
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    fields = [("Content-Type", "text/plain")]
    if path == "/download":
        start_response("200 OK", [*fields, ("Content-Length", query)])
        return blocks(int(query))
    text = str(drain(environ["wsgi.input"])) if path == "/upload" else WAYS[path](query)
    start_response("200 OK", [*fields, ("Content-Length", str(len(text)))])
    return [text.encode()]


def blocks(size: int) -> Iterator[bytes]:
    try:
        for start in range(0, size, len(BLOCK)):
            yield BLOCK[: size - start]
    finally:
        print(f"no more blocks of {size} bytes")


def drain(stream: Any) -> int:
    """How many bytes there were."""
    return sum(map(len, iter(lambda: stream.read(1 << 16), b"")))


Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def asgi(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/download":
        await send_blocks(int(query), send)
        return
    if path == "/upload":
        text = str(await receive_all(receive))
    elif path == "/wait":
        text = await asyncio.to_thread(wait, query)
    else:
        text = WAYS[path](query)
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def live(receive: Receive, send: Send) -> None:
    """The lifespan protocol."""
    for word in ("startup", "shutdown"):
        message = await receive()
        print(f"lifespan {message['type']} of {who()}")
        await send({"type": f"lifespan.{word}.complete"})


async def receive_all(receive: Receive) -> int:
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return size


async def send_blocks(size: int, send: Send) -> None:
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for block in blocks(size):
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def create_app() -> Any:
    return app


def create_nothing() -> Any:
    raise RuntimeError("no application today")


not_an_application = 42
