"""Takes connections from the shared listeners and gives them to a protocol.

Not `loop.create_server`: that would call listen() again on a socket that is not ours, takes all
there is at once, and knows no limit. Used by `lifecycle`.
"""

import asyncio
import errno
import functools
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sengu.http.asgi.preamble import read_header
from sengu.http.asgi.state import State
from sengu.http.proxy import ProxyHeader, Trust
from sengu.model.web import WebOptions

# Taken at a time: few, so that other workers get some too; more than one, or a crowd would wait
# for a turn of the loop each.
_BATCH = 8
_FAREWELL_SECONDS = 2.0  # for a client to say its own in TLS
_PAUSE_SECONDS = 0.5  # after an error that time may heal
_TRANSIENT = frozenset({errno.EAGAIN, errno.ECONNABORTED, errno.EINTR})

MakeProtocol = Callable[[ProxyHeader | None], asyncio.Protocol]


class Acceptor:
    """All listeners of a worker. `make` is called for each connection."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make: MakeProtocol,
        state: State,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listeners = listeners
        self._make = make
        self._state = state
        options = state.options
        self._header_seconds = options.timeouts.header_seconds
        self._trust = Trust(options.trusted_proxies if options.proxy_protocol else ())
        self._tls = _tls_arguments(tls, options)
        self._loop = asyncio.get_running_loop()
        self._is_accepting = False
        self._is_over = False

    def start(self) -> None:
        """Accept, also after a pause."""
        if self._is_accepting or self._is_over:
            return
        self._is_accepting = True
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def resume(self) -> None:
        """Somebody has left."""
        if not self._state.is_full:
            self.start()

    def stop(self, *, take_the_rest: bool) -> None:
        """Accept no more; before that, if so wished, all who are in the queues now."""
        if self._is_over:
            return
        self._is_over = True
        self._pause()
        if take_the_rest:
            for listener in self._listeners:
                while not self._state.is_full and self._accept_one(listener):
                    pass

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            if self._state.is_full:
                self._pause()  # whoever waits is served by another worker, or when there is room
                return
            if not self._accept_one(listener):
                return

    def _accept_one(self, listener: socket.socket) -> bool:
        """Whether somebody was there."""
        try:
            connection, address = listener.accept()
        except OSError as error:
            if error.errno not in _TRANSIENT:  # out of descriptors or memory
                print(f"sengu: cannot accept: {error.strerror}", file=sys.stderr)
                self._pause()
                self._loop.call_later(_PAUSE_SECONDS, self.resume)
            return False
        self._state.expect(self._loop.create_task(self._welcome(connection, address)))
        return True

    async def _welcome(self, connection: socket.socket, address: Any) -> None:
        connection.setblocking(False)
        try:
            header = None
            if self._trust.trusts(address[0] if isinstance(address, tuple) else ""):
                header = await read_header(connection, self._header_seconds)
            await self._loop.connect_accepted_socket(
                functools.partial(self._make, header), connection, **self._tls
            )
        except (OSError, ValueError):  # it has gone, or what it says is no PROXY header, no TLS
            connection.close()


def _tls_arguments(tls: ssl.SSLContext | None, options: WebOptions) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "ssl": tls,
        "ssl_handshake_timeout": options.timeouts.header_seconds,
        "ssl_shutdown_timeout": _FAREWELL_SECONDS,
    }
