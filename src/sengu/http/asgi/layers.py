"""What is laid around an application when the options say so, each an ASGI application itself.

They are about requests, so HTTP and websockets share them, and who does not want one does not pay
for it. Used by `front`.
"""

import asyncio
from typing import Any

from sengu.http.access_log import Log, Record, user_of
from sengu.http.asgi.types import App, Message, Receive, Scope, Send
from sengu.http.exchange import traceback_page
from sengu.http.proxy import Trust, forwarded
from sengu.http.target import own_traceback
from sengu.posix import clock

_FORWARDED = {
    b"forwarded": "HTTP_FORWARDED",
    b"x-forwarded-for": "HTTP_X_FORWARDED_FOR",
    b"x-forwarded-proto": "HTTP_X_FORWARDED_PROTO",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}
_LOGGED = (b"authorization", b"referer", b"user-agent")
_SWITCHING_PROTOCOLS = 101
_FORBIDDEN = 403


def below(app: App, root_path: str) -> App:
    """`root_path` is part of every path, whether or not a proxy has cut it off."""
    raw_root = root_path.encode()

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = root_path
        path: str = scope["path"]
        if path != root_path and not path.startswith(f"{root_path}/"):
            scope["path"] = root_path + path
            scope["raw_path"] = raw_root + scope["raw_path"]
        await app(scope, receive, send)

    return mounted


def trusting(app: App, trust: Trust) -> App:
    """Client, scheme and host are what trusted proxies say they are."""

    async def believing(scope: Scope, receive: Receive, send: Send) -> None:
        believe(scope, trust)
        await app(scope, receive, send)

    return believing


def believe(scope: Scope, trust: Trust) -> None:
    """Put into the scope what is believed."""
    said: dict[str, str] = {}
    for name, value in scope["headers"]:
        if (key := _FORWARDED.get(name)) is not None:
            text = value.decode("latin-1")
            said[key] = f"{said[key]}, {text}" if key in said else text
    if not said:
        return
    client = scope["client"]
    found = forwarded(trust, client[0] if client else "", said)
    if found.client is not None:
        scope["client"] = (found.client.address, int(found.client.port or 0))
    if found.scheme is not None:
        is_websocket = scope["type"] == "websocket"
        scope["scheme"] = found.scheme.replace("http", "ws") if is_websocket else found.scheme
    if found.host is not None:
        rest = [field for field in scope["headers"] if field[0] != b"host"]
        scope["headers"] = [(b"host", found.host.encode("latin-1")), *rest]


def logged(app: App, log: Log) -> App:
    """A line in the access log for each request, when it has been answered."""

    async def logging(scope: Scope, receive: Receive, send: Send) -> None:
        begun_at = clock.monotonic()
        at = clock.wall()
        status = size = 0

        async def tell(message: Message) -> None:
            nonlocal status, size
            await send(message)
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                case "http.response.body" | "websocket.http.response.body":
                    size += len(message.get("body", b""))
                case "websocket.accept":
                    status = _SWITCHING_PROTOCOLS
                case "websocket.close":
                    status = status or _FORBIDDEN
                case _:
                    pass

        try:
            await app(scope, receive, tell)
        finally:
            # Without a status uvicorn answers 500, for it was the application that failed.
            record = _record(scope, at, status or 500, size, clock.monotonic() - begun_at)
            log.add(record)
            asyncio.get_running_loop().call_soon(log.flush)

    return logging


def _record(scope: Scope, at: float, status: int, size: int, seconds: float) -> Record:
    fields: dict[bytes, bytes] = dict(scope["headers"])
    claims, referer, agent = (fields.get(name, b"").decode("latin-1") for name in _LOGGED)
    client = scope["client"]
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    line = f"{scope.get('method', 'GET')} {target.decode('latin-1')} HTTP/{scope['http_version']}"
    address = client[0] if client else ""
    return Record(address, at, line, status, size, seconds, user_of(claims), referer, agent)


def explained(app: App) -> App:
    """For developers: an exception is shown to whoever made the request."""

    async def explaining(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def tell(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, tell)
        except Exception as error:  # whatever the application raises; uvicorn reports it
            if scope["type"] == "http" and not has_begun:
                await _show(send, own_traceback(error))
            raise

    return explaining


async def _show(send: Send, trace: str) -> None:
    page = traceback_page("Exception in the application", trace).encode("utf-8", "backslashreplace")
    fields = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", b"%d" % len(page)),
        (b"connection", b"close"),
    ]
    start: dict[str, Any] = {"type": "http.response.start", "status": 500, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": page})
