"""The requests that a worker has in its hands, told to the scoreboard's one lane.

An event loop has many requests in hand and one line to tell of them: that of the oldest. Knows no
sockets. Used by `front`, which sees requests begin and end, and by `state`, which ticks.
"""

from collections.abc import Awaitable

from sengu.http.asgi.types import Message, Scope, Send
from sengu.worker.board import Lane

# Their answers end with the head (RFC 9112 §6.3): a body, which uvicorn sends with those that say
# how long it is, would be taken for the next answer.
_BODILESS = (204, 304)
_FRAMING = (b"content-length", b"transfer-encoding")


class Request:
    """One call of the application. `has_answered` once a response, or a websocket, has begun."""

    __slots__ = ("_is_bodiless", "_send", "has_answered", "scope", "started_at")

    def __init__(self, scope: Scope, send: Send, started_at: float) -> None:
        self._send = send
        self.scope = scope
        self.started_at = started_at
        self.has_answered = False
        self._is_bodiless = False

    def send(self, message: Message) -> Awaitable[None]:
        """What the application is given to send by."""
        self.has_answered = True
        if message.get("status") in _BODILESS:
            self._is_bodiless = True
            fields = [one for one in message.get("headers", ()) if one[0].lower() not in _FRAMING]
            message = {**message, "headers": fields}
        elif self._is_bodiless:
            message = {**message, "body": b""}
        return self._send(message)

    def head(self) -> bytes:
        scope = self.scope
        # A websocket's scope has no method.
        return b"%s %s" % (scope.get("method", "GET").encode(), scope["raw_path"])


class Hand:
    """All requests in hand, in the order of their begin.

    The server kills a worker whose progress is older than the request timeout. Progress is told by
    a tick from the event loop, so one that is stuck is seen, whoever stuck it; and a request whose
    response does not begin in time holds the tick back, though the loop is well. A response that
    has begun, a stream or a websocket, may last for ever.
    """

    def __init__(self, lane: Lane, timeout_seconds: float | None) -> None:
        self._lane = lane
        self._timeout_seconds = timeout_seconds
        self._requests: dict[Request, None] = {}
        self._shown: Request | None = None
        self._ticked_at = 0.0

    def begin(self, request: Request) -> None:
        self._requests[request] = None
        if self._shown is None:
            self._shown = request
            self._lane.begin(request.started_at, request.head())
        else:
            self._lane.requests += 1  # published by the next tick

    def end(self, request: Request) -> None:
        del self._requests[request]
        if self._shown is not request:
            return
        self._shown = None
        if not self._requests:
            self._lane.end()
            return
        self._shown = shown = next(iter(self._requests))
        self._lane.show(shown.started_at, max(shown.started_at, self._ticked_at), shown.head())

    def tick(self, now: float) -> None:
        """The event loop runs: tell so, unless a request is overdue."""
        self._ticked_at = now
        self._lane.count()
        if self._shown is None:
            return
        timeout = self._timeout_seconds
        oldest = next((one for one in self._requests if not one.has_answered), None)
        if oldest is None or timeout is None or now - oldest.started_at < timeout:
            self._lane.progress(now)
        else:
            self._lane.progress(oldest.started_at)
