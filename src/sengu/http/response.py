"""The answer to one request: `start_response`, `write`, and its framing on the wire.

PEP 3333 for what the application says, RFC 9112 §6 for what the client gets. One object a request,
so that nothing of it can get into the next one. Made and driven by `exchange`.
"""

import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from sengu.http.connection import Connection
from sengu.http.environ import CLOSE
from sengu.http.file_wrapper import FileWrapper, Span
from sengu.http.head import REASONS, Refusal
from sengu.http.rendering import Headers, prefixes, render_fields

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_JOIN_BYTES = 1 << 16  # up to which a copy is cheaper than another system call


class Response:
    """Said by the application piece by piece, and sent as soon as it has to be.

    `is_started` is that the head is on its way; `stays`, final then, whether the connection
    lives on. `left` is what is missing of a declared length. `sent` counts the body's bytes."""

    status = ""
    sent = 0
    left: int | None = None
    length: int | None = None  # as the application declares it
    is_started = False
    is_whole = False
    is_too_long = False
    stays = True
    _is_chunked = False
    _is_bodiless = False
    _head = b""
    _prefix = ""
    _fields = ""

    def __init__(self, connection: Connection) -> None:
        # Not the environ: that refers to us, and a circle is left to the garbage collector.
        self._connection = connection

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        """PEP 3333. Raises ValueError, TypeError for what must not be sent."""
        if exc_info is not None or self.status:
            self._begin_again(exc_info)
        self._fields, self.length, given = render_fields(headers)
        self._prefix = prefixes.ready.get(status) or prefixes.get(status)
        if given:
            self._prefix = prefixes.without(status, given)
        self.status = status
        return self.write

    def _begin_again(self, exc_info: ExcInfo | None) -> None:
        if exc_info is None:
            raise RuntimeError("start_response was called before, and now without exc_info")
        try:
            if self.is_started:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            del exc_info  # the traceback's frames refer to it

    def _frame(self, body_bytes: int | None) -> bytes:
        """The head; `body_bytes` is how long the body will be, when that is known."""
        connection = self._connection
        if not self.status:
            raise RuntimeError("the application has not called start_response")
        decoder = connection.decoder
        manner = connection.manner
        if decoder is not None and not decoder.done:
            self.stays = False
            connection.expects = False  # a 100 would be in the midst of the body
        elif not manner.stays or connection.site.runtime.stopping:
            self.stays = False
        extra = ""
        if manner.is_head or self.status in prefixes.bodiless:
            self._is_bodiless = True
        elif self.length is not None or body_bytes is not None:
            self.left = self.length if self.length is not None else body_bytes
        if self._is_bodiless:
            if self.length is not None and self.status[:3] != "204":  # RFC 9110 §8.6
                extra = f"Content-Length: {self.length}\r\n"
        elif self.left is not None:
            extra = f"Content-Length: {self.left}\r\n"
        elif manner.is_old:
            self.stays = False
        else:
            self._is_chunked = True
            extra = "Transfer-Encoding: chunked\r\n"
        extra += manner.connection if self.stays else CLOSE
        return f"{self._prefix}{self._fields}{extra}\r\n".encode("latin-1")

    def send_only(self, body: bytes) -> bool:
        """Send an answer whose body is this, which most are like; False if it is not so simple."""
        connection = self._connection
        manner = connection.manner
        size = len(body)
        if (
            self.is_started
            or (self.length != size and self.length is not None)
            or size > _JOIN_BYTES
            or self.status in prefixes.bodiless
            or connection.site.runtime.stopping
            or not (manner.is_simple or self._is_read())
        ):
            return False
        head = f"{self._prefix}{self._fields}Content-Length: {size}\r\n{manner.connection}\r\n"
        data = head.encode("latin-1") + body
        self.is_started = True
        self.stays = manner.stays
        connection.send(data)
        self.sent = size
        self.is_whole = True
        return True

    def _is_read(self) -> bool:
        """Whether the answer has a body, and all of the request's has come."""
        decoder = self._connection.decoder
        return not self._connection.manner.is_head and (decoder is None or decoder.done)

    def send_all(self, chunks: Iterable[bytes]) -> None:
        """Send an answer whose body comes from the application's iterable."""
        if isinstance(chunks, FileWrapper):
            span = chunks.span()
            if span is not None and not self.is_started and self._connection.site.tls is None:
                self._send_file(span)
                return
        size = _size(chunks)
        for chunk in chunks:
            if chunk:
                if not self.is_started:
                    self._begin(size)
                self._put(chunk)
        self.finish()

    def write(self, data: bytes, /) -> None:
        """PEP 3333: for applications that push."""
        if self.is_whole:  # the connection is in the hands of the next request
            raise RuntimeError("write was called after the answer's end")
        if not self.is_started and data:
            self._begin(None)
        self._put(data)

    def _begin(self, size: int | None) -> None:
        self._head = self._frame(size)
        if self._is_chunked or self.left is None:
            self._connection.speak_at_once()

    def _put(self, data: bytes) -> None:
        """Send a piece of the body, after the head when that is still here."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body is made of bytes, not of {type(data).__name__}")
        self.is_started = self.is_started or bool(self._head)
        if self._is_bodiless:
            data = b""
        elif self.left is not None:
            if len(data) > self.left:
                self.is_too_long = True
                data = data[: self.left]
            self.left -= len(data)
        self.sent += len(data)
        if self._is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        head, self._head = self._head, b""
        if head and len(data) > _JOIN_BYTES:
            self._connection.send(head, socket.MSG_MORE)
            head = b""
        if head or data:
            self._connection.send(head + data if head else data)

    def finish(self) -> None:
        """The application has given all. Less than it declared is no whole answer."""
        if not self.is_started:
            self._begin(0)
            self.is_started = True
        if self._is_chunked:
            self._head += b"0\r\n\r\n"
        if self._head:
            self._connection.send(self._head)
            self._head = b""
        self.is_whole = not self.left

    def _send_file(self, span: Span) -> None:
        self._head = self._frame(span.size)
        self.is_started = True
        if span.size and not self._is_bodiless:
            if self.left is not None:
                span = Span(span.fd, span.offset, min(span.size, self.left))
            self._connection.send(self._head, socket.MSG_MORE)
            self._head = b""
            self.sent = self._connection.send_file(span)
            if self.left is not None:
                self.left -= self.sent
        self._is_chunked = False
        self.finish()

    def replace(self, refusal: Refusal, kind: str) -> None:
        """Answer in place of an application that failed; nothing of its own was sent."""
        self.status = ""
        self._head, self.left = b"", None
        self._is_chunked = self._is_bodiless = False
        self.start_response(
            f"{refusal.status} {REASONS[refusal.status]}",
            [("Content-Type", f"{kind}; charset=utf-8")],
        )
        self.send_all([refusal.reason.encode()])

    def early_hints(self, headers: Headers, /) -> None:
        """Send a 103 (RFC 8297) before the answer, to clients that know of such."""
        if not self.is_started and not self._connection.manner.is_old:
            fields, _, _ = render_fields(headers)
            hints = f"HTTP/1.1 103 Early Hints\r\n{fields}\r\n".encode("latin-1")
            self._connection.send(hints)


def _size(chunks: Any) -> int | None:
    """How long the body is, when the iterable can tell (PEP 3333, Content-Length)."""
    if type(chunks) in (list, tuple):
        return sum(map(len, chunks))
    return None
