"""One websocket: uvicorn's protocol, closed with 1012 (service restart) when the worker drains."""

import asyncio
import math
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sengu.http.asgi.state import State

if TYPE_CHECKING:
    from sengu.http.asgi.connection import HttpConnection

_SERVICE_RESTART = 1012  # RFC 6455 §7.4, IANA's registry of close codes
_FAREWELL_SECONDS = 5.0  # for the client to answer the close


class WebSocket(WebSocketsSansIOProtocol):
    """A `Guest` that was an HTTP connection before, and takes its place."""

    def __init__(
        self,
        before: "HttpConnection",
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.state = server_state
        self.deadline = math.inf
        self._before = before
        self._has_farewell = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.client = self._before.client
        self.server = self._before.server

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.state.left()

    def expire(self, now: float) -> None:
        """uvicorn's pings see to it that the client is there."""

    def retire(self) -> None:
        if self._has_farewell or self.close_sent or not self.handshake_complete:
            return
        self._has_farewell = True
        self.stop_keepalive()
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": _SERVICE_RESTART, "reason": "service restart"}
        )
        self.conn.send_close(_SERVICE_RESTART, "service restart")
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.read_paused:  # the client's answer must be seen
            self.read_paused = False
            self.transport.resume_reading()
        # With it the connection outlives the application's call, until the client has answered.
        self.close_timer = self.loop.call_later(_FAREWELL_SECONDS, self.transport.close)

    def dismiss(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()
