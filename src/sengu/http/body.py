"""The body of a request: its framing on the wire, and `wsgi.input`.

Decoders take bytes as they come and give payload; they do no I/O. `Input` is what the application
reads (PEP 3333): what has been taken in, then the socket, never more than one piece ahead.
Made by `intake`.
"""

import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from sengu.http.head import Refusal

PIECE_BYTES = 1 << 16
_MAX_SIZE_LINE_BYTES = 1024  # of a chunk: size and extensions
_MAX_TRAILERS_BYTES = 1 << 14
_MAX_SIZE_DIGITS = 15

# RFC 9112 §7.1: HEXDIG, and extensions without control characters, so without bare CR and LF.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class Decoder(Protocol):
    """Takes the bytes that follow a head. `rest` is what came after the body's end."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`; raises Refusal. Not to be called when done."""


class LengthDecoder:
    """A body of `remaining` bytes."""

    __slots__ = ("done", "remaining", "rest")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data
        payload, self.rest = data[: self.remaining], data[self.remaining :]
        self.remaining = 0
        self.done = True
        return payload


class ChunkedDecoder:
    """The chunked coding, RFC 9112 §7.1, to the letter. Extensions and trailers are discarded."""

    __slots__ = (
        "_at",
        "_buffer",
        "_left",
        "_limit",
        "_step",
        "_total",
        "_trailers",
        "done",
        "rest",
    )

    def __init__(self, max_bytes: int | None) -> None:
        self._limit = max_bytes
        self._buffer = b""
        self._at = 0  # what is before it in the buffer is done with
        self._left = 0  # of the chunk at hand
        self._total = 0
        self._trailers = 0
        self._step: Callable[[list[bytes]], bool] = self._read_size
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        payload: list[bytes] = []
        while self._step(payload):
            pass
        self._buffer = self._buffer[self._at :]
        self._at = 0
        if self.done:
            self.rest, self._buffer = self._buffer, b""
        return b"".join(payload)

    def _line(self, max_bytes: int) -> bytes | None:
        """The next line without its end, None when that has not come."""
        end = self._buffer.find(b"\r\n", self._at, self._at + max_bytes + 2)
        if end < 0:
            part = self._buffer[self._at :]
            if len(part) > max_bytes + 1 or b"\n" in part or b"\r" in part[:-1]:
                raise Refusal(400, "malformed line in the chunked body")
            return None
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    def _read_size(self, _payload: list[bytes]) -> bool:
        line = self._line(_MAX_SIZE_LINE_BYTES)
        if line is None:
            return False
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(match[1]) > _MAX_SIZE_DIGITS:
            raise Refusal(400, "malformed chunk size")
        self._left = int(match[1], 16)
        self._total += self._left
        if self._limit is not None and self._total > self._limit:
            raise Refusal(413, f"the body is longer than {self._limit} bytes")
        self._step = self._read_chunk if self._left else self._read_trailer
        return True

    def _read_chunk(self, payload: list[bytes]) -> bool:
        piece = self._buffer[self._at : self._at + self._left]
        payload.append(piece)
        self._at += len(piece)
        self._left -= len(piece)
        if self._left:
            return False
        self._step = self._read_end_of_chunk
        return True

    def _read_end_of_chunk(self, _payload: list[bytes]) -> bool:
        end = self._buffer[self._at : self._at + 2]
        if not b"\r\n".startswith(end):
            raise Refusal(400, "a chunk is longer than its size")
        if len(end) < 2:
            return False
        self._at += 2
        self._step = self._read_size
        return True

    def _read_trailer(self, _payload: list[bytes]) -> bool:
        line = self._line(_MAX_TRAILERS_BYTES)
        if not line:
            self.done = line is not None
            return False
        self._trailers += len(line)
        if self._trailers > _MAX_TRAILERS_BYTES:
            raise Refusal(431, "the trailers are too long")
        if not _TRAILER.fullmatch(line):
            raise Refusal(400, "malformed trailer")
        return True


class BodyError(OSError):
    """Reading the body failed: the client is gone, too slow, or sent nonsense."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class NoInput:
    """`wsgi.input` of a request without a body. One for all: it keeps nothing."""

    __slots__ = ()

    def read(self, _size: int | None = -1, /) -> bytes:
        return b""

    def readline(self, _size: int | None = -1, /) -> bytes:
        return b""

    def readlines(self, _hint: int | None = -1, /) -> list[bytes]:
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class Input:
    """`wsgi.input` of a request with a body: ends where the body ends.

    `taken` is the payload that is here already. `receive` waits for more bytes of the connection
    and raises Refusal when they do not come.
    """

    __slots__ = ("_decoder", "_receive", "_taken", "failure")

    def __init__(self, decoder: Decoder, taken: bytes, receive: Callable[[], bytes]) -> None:
        self._decoder = decoder
        self._taken = io.BytesIO(taken)
        self._receive = receive
        self.failure: Refusal | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        piece = self._taken.read(size)
        if len(piece) == size or not self._fill():
            return piece
        pieces = [piece]
        missing = size - len(piece)
        while missing and (self._has_taken() or self._fill()):
            pieces.append(self._taken.read(missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def readline(self, size: int | None = -1, /) -> bytes:
        missing = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        while missing and (self._has_taken() or self._fill()):
            pieces.append(self._taken.readline(missing))
            missing -= len(pieces[-1])
            if pieces[-1].endswith(b"\n"):
                break
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _has_taken(self) -> bool:
        return self._taken.tell() < self._taken.getbuffer().nbytes

    def _fill(self) -> bool:
        """Wait for more payload, when all that was taken is read; False at the body's end."""
        payload = b""
        while not payload and not self._decoder.done:
            if self.failure is None:
                try:
                    payload = self._decoder.feed(self._receive())
                except Refusal as refusal:
                    self.failure = refusal
            if self.failure is not None:
                raise BodyError(self.failure)
        self._taken = io.BytesIO(payload)
        return bool(payload)
