"""pika's protocol on our loop and a socket of ours. What is sent in a round goes out together.

The base class is made for this: its `_adapter_…` methods are what an I/O layer supplies (pika,
Connection). Imported by `link`.
"""

import select
import ssl
from collections.abc import Callable
from typing import Any

from pika.connection import Connection, Parameters
from pika.exceptions import StreamLostError

from sengu.posix.loop import Loop, Timer

# pika copies what is left of a piece for each frame in it: large pieces cost more than they save.
_READ_BYTES = 1 << 14
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LoopConnection(Connection):
    """Takes over a connected socket. `flush` is to be called after each round of the loop."""

    # What the base class has for its I/O layer.
    _on_stream_connected: Callable[[], None]
    _on_data_available: Callable[[bytes], None]
    _on_stream_terminated: Callable[[Exception | None], None]

    def __init__(
        self,
        parameters: Parameters,
        loop: Loop,
        socket: Any,
        on_open: Callable[[Connection], None],
        on_end: Callable[[Connection, BaseException], None],
    ) -> None:
        """`on_end` is called once, also if it was never open."""
        self._loop = loop
        self._socket = socket
        self._unsent = bytearray()
        socket.setblocking(False)
        super().__init__(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=on_end,
            on_close_callback=on_end,
        )

    def flush(self) -> None:
        """Send what can be sent now; the rest when there is room."""
        if not self._unsent or self._socket is None:
            return
        try:
            sent = self._socket.send(self._unsent)
            del self._unsent[:sent]
        except _NOT_NOW:
            pass
        except OSError as error:
            self._lose(error)
            return
        self._watch()

    def abandon(self) -> None:
        """Let go of the socket without a word."""
        self._close_socket()

    def _watch(self) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._loop.watch(self._socket.fileno(), events, self._on_ready)

    def _on_ready(self) -> None:
        self.flush()
        while self._socket is not None:
            try:
                data = self._socket.recv(_READ_BYTES)
            except _NOT_NOW:
                return
            except OSError as error:
                self._lose(error)
                return
            if not data:
                self._lose(StreamLostError("the broker has closed the connection"))
                return
            self._on_data_available(data)
            # TLS may have read more than it gave, of which epoll does not know.
            if len(data) < _READ_BYTES and not _pending(self._socket):
                return

    def _lose(self, error: Exception) -> None:
        self._close_socket()
        self._on_stream_terminated(error)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # What pika asks of its I/O layer

    def _adapter_connect_stream(self) -> None:
        self._on_stream_connected()
        self._watch()

    def _adapter_disconnect_stream(self) -> None:
        self.flush()
        if self._socket is not None:  # else that has told already
            self._close_socket()
            self._loop.call_at(self._loop.now(), lambda: self._on_stream_terminated(None))

    def _adapter_emit_data(self, data: bytes) -> None:
        self._unsent += data

    def _adapter_call_later(self, delay: float, callback: Callable[[], Any]) -> Timer:
        return self._loop.call_at(self._loop.now() + delay, callback)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., Any]) -> None:
        raise NotImplementedError("threads speak through the pool, not to the connection")


def _pending(socket: Any) -> int:
    return socket.pending() if isinstance(socket, ssl.SSLSocket) else 0
