"""The requests that a worker has in its hands, told to the scoreboard's one lane.

An event loop has many requests in hand and one line to tell of them: that of the oldest. Knows no
sockets. Used by `front`, which sees requests begin and end, and by `state`, which ticks.
"""

from collections.abc import Awaitable

from sengu.http.asgi.types import Message, Receive, Scope, Send
from sengu.worker.board import Lane

# Their answers end with the head (RFC 9112 §6.3): a body, which uvicorn sends with those that say
# how long it is, would be taken for the next answer.
_BODILESS = (204, 304)
_FRAMING = (b"content-length", b"transfer-encoding")


class Request:
    """One call of the application. `has_answered` once a response, or a websocket, has begun;
    `is_done` once all of a response was sent."""

    __slots__ = (
        "_has_all",
        "_has_received",
        "_is_bodiless",
        "_is_receiving",
        "_receive",
        "_send",
        "has_answered",
        "is_done",
        "progress_at",
        "scope",
        "started_at",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, started_at: float) -> None:
        self._receive = receive
        self._send = send
        self.scope = scope
        self.started_at = self.progress_at = started_at
        self.has_answered = False
        self._is_bodiless = False
        self.is_done = False
        self._has_all = False  # of the body
        self._is_receiving = False
        self._has_received = False

    async def receive(self) -> Message:
        """What the application is given to receive by."""
        self._is_receiving = not self._has_all
        try:
            message = await self._receive()
        finally:
            self._has_received = self._is_receiving
            self._is_receiving = False
        self._has_all = not message.get("more_body", False)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """What the application is given to send by."""
        self.has_answered = True
        self.is_done = message["type"] == "http.response.body" and not message.get("more_body")
        if message.get("status") in _BODILESS:
            self._is_bodiless = True
            fields = [one for one in message.get("headers", ()) if one[0].lower() not in _FRAMING]
            message = {**message, "headers": fields}
        elif self._is_bodiless:
            message = {**message, "body": b""}
        return self._send(message)

    def tick(self, now: float) -> None:
        """While its client takes its time with the body, the application is not stuck."""
        if self._is_receiving or self._has_received:
            self.progress_at = now
            self._has_received = False

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
        least = now
        for request in self._requests:
            if not request.has_answered:
                request.tick(now)
                least = min(least, request.progress_at)
        is_overdue = self._timeout_seconds is not None and now - least >= self._timeout_seconds
        self._lane.progress(least if is_overdue else now)
