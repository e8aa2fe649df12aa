"""One HTTP connection: uvicorn's protocol, with limits, timeouts and a drain that loses nothing.

llhttp, the parser below it, is strict; `rules` has what it leaves open. What is overridden are
callbacks of asyncio and of the parser, and one of uvicorn's: `on_response_complete`.
"""

import asyncio
import functools
import math
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sengu.http.asgi.rules import check_length, check_request, check_sizes
from sengu.http.asgi.state import State
from sengu.http.asgi.websocket import WebSocket
from sengu.http.head import REASONS, Refusal
from sengu.http.proxy import ProxyHeader
from sengu.posix import clock
from sengu.posix.outgoing import untaken
from sengu.worker.runtime import Stopping

_LINGER_SECONDS = 2.0


class HttpConnection(HttpToolsProtocol):
    """A `Guest`. At most one of its requests is with the application, the others wait in order."""

    def __init__(
        self,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.state = server_state
        self.deadline = math.inf
        self.proxy_header: ProxyHeader | None = None
        self._limits = server_state.options.limits
        self._timeouts = server_state.options.timeouts
        self.ws_protocol_class = cast(Any, functools.partial(WebSocket, self))
        self._undigested = 0  # bytes of which the parser has made neither a head nor a body
        # Of the body that is being read; None when none is. Counted where there is a limit.
        self._body_bytes: int | None = None
        self._refusal: Refusal | None = None
        self._is_deaf = False
        self._unsent = 0

    @property
    def _is_answering(self) -> bool:
        # uvicorn has None there before the first request.
        return bool(self.cycle) and not self.cycle.response_complete

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        header = self.proxy_header
        if header is not None and header.client is not None and header.server is not None:
            self.client = (header.client.address, int(header.client.port))
            self.server = (header.server.address, int(header.server.port))
        self.deadline = self.state.first_deadline()
        self.state.arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.state.left()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        begins = not self._undigested and self._body_bytes is None
        self._undigested += len(data)
        try:
            self.parser.feed_data(data)
            if self._undigested > self.state.head_limits.total_bytes:
                raise Refusal(431, "the header is too long")
        except HttpParserUpgrade:
            self._upgrade()
        except HttpParserError as error:
            is_version = "HTTP version" in str(error)
            self._refuse(self._refusal or Refusal(505 if is_version else 400, str(error)))
        except Refusal as refusal:
            self._refuse(refusal)
        else:
            if self._undigested or self._body_bytes is not None:
                if begins:
                    self._relax()  # what counted was when it had to begin
                self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline = clock.monotonic() + self._timeouts.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self.deadline = math.inf
        self._arm()

    # Callbacks of the parser

    def on_headers_complete(self) -> None:
        limits = self._limits
        try:
            check_request(self.parser, self.url, self.headers, limits)
            if self._undigested > self.state.smallest_limit:
                check_sizes(self.url, self.headers, limits)
        except Refusal as refusal:
            self._refusal = refusal
            raise
        self._undigested = 0
        self._body_bytes = 0
        self._relax()
        super().on_headers_complete()
        # What comes as a trailer is not to be found among the fields of the head.
        self.headers = self.headers.copy()

    def on_body(self, body: bytes) -> None:
        self._undigested = 0
        limit = self._limits.body_bytes
        if limit is not None and self._body_bytes is not None:
            self._body_bytes += len(body)
            try:
                check_length(self._body_bytes, limit)
            except Refusal as refusal:
                self._refusal = refusal
                raise
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._undigested = 0
        self._body_bytes = None
        self._relax()
        super().on_message_complete()
        if self.state.stopping is not Stopping.NO:
            self.retire()

    # uvicorn's

    def on_response_complete(self) -> None:
        """As uvicorn's, but with a deadline instead of a timer for each response."""
        if self.transport.is_closing():
            self.deadline = clock.monotonic() + self._timeouts.body_seconds
            return
        if self.pipeline:
            super().on_response_complete()
            return
        self.flow.resume_reading()
        if self._refusal is not None:
            self._say_no(self._refusal)
        elif not self._undigested and self._body_bytes is None:
            self.deadline = self.state.idle_until

    # Guest

    def retire(self) -> None:
        """Announce the close in the response, if there is still time to: before it begins, and when
        the request has been read, so that the close can not be a reset. Else the connection stays
        for one more request, or for one that has begun to come, unless together with the end of
        another."""
        if self._is_answering:
            if self._body_bytes is None and not self.cycle.response_started:
                self._announce_close()
        elif not self._undigested and self._body_bytes is None:
            self.deadline = min(self.deadline, self.state.idle_until)

    def dismiss(self) -> None:
        if self._is_answering and self.cycle.response_started:
            self._disconnect()
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def expire(self, now: float) -> None:
        self.deadline = math.inf
        is_begun = self._body_bytes is not None or self._undigested
        if self.flow.write_paused or self.transport.is_closing():
            self._expire_unsent(now)
        elif self._is_deaf:
            self.transport.abort()
        elif is_begun and self.flow.read_paused:
            self._arm()  # it is the application that does not read
        elif is_begun:
            self._refuse(Refusal(408, "the request did not come in time"))
        else:
            self.transport.close()

    def _expire_unsent(self, now: float) -> None:
        """A client that reads slowly is served, one that does not read is not."""
        self.deadline = now + self._timeouts.body_seconds
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:  # closed this very moment: `connection_lost` comes
            return
        unsent = self.transport.get_write_buffer_size() + untaken(sock.fileno())
        if unsent == self._unsent:
            self.transport.abort()
        self._unsent = unsent

    def _relax(self) -> None:
        """The client has done its part, unless it still has to read."""
        if not self.flow.write_paused:
            self.deadline = math.inf

    def _arm(self) -> None:
        """Set the deadline for what has been begun and not ended."""
        if self._body_bytes is not None:
            self.deadline = clock.monotonic() + self._timeouts.body_seconds
        elif self._undigested:  # since it began: more of it makes the deadline no later
            seconds = self._timeouts.header_seconds
            self.deadline = min(self.deadline, clock.monotonic() + seconds)

    def _upgrade(self) -> None:
        if self._should_upgrade():
            if self._is_answering:
                self._refuse(Refusal(400, "an upgrade in the middle of other answers"))
            else:
                self.handle_websocket_upgrade()
            return
        # The parser reads no further: what comes may be in the other protocol.
        self._is_deaf = True
        self._announce_close()

    def _announce_close(self) -> None:
        """Whether uvicorn says so by itself depends on its version."""
        if self.cycle.keep_alive:
            self.cycle.keep_alive = False
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is wrong, in its turn, and close."""
        self._is_deaf = True
        self._refusal = refusal
        self.deadline = math.inf
        if not self._is_answering:
            if self._body_bytes is None:
                self._say_no(refusal)
            else:  # it has been answered, before its body had come
                self._linger()
        elif self._body_bytes is not None and self.pipeline:
            self.pipeline.popleft()  # the request with the wrong body, whose turn has not come
        elif self._body_bytes is not None:
            has_begun = self.cycle.response_started
            self._disconnect()
            if has_begun:
                self.transport.close()
            else:
                self._say_no(refusal)

    def _disconnect(self) -> None:
        """Tell the application that nobody listens any more."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.flow.resume_writing()

    def _say_no(self, refusal: Refusal) -> None:
        text = f"{refusal.status} {REASONS[refusal.status]}"
        fields = [
            *self.state.default_headers,
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % (len(refusal.reason) + 1)),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        body = refusal.reason.encode("latin-1", "replace")
        self.transport.write(b"HTTP/1.1 %s\r\n%s\r\n%s\n" % (text.encode(), head, body))
        self._linger()

    def _linger(self) -> None:
        """Half-close and read for a moment: a close with bytes unread is a reset, and may take the
        last answer with it."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.deadline = clock.monotonic() + _LINGER_SECONDS
        else:
            self.transport.close()
