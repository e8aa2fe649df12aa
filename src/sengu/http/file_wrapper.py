"""`wsgi.file_wrapper` (PEP 3333): a file as an iterable, or as something the kernel sends.

Made by applications; `response` looks whether it is a real file.
"""

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A part of a regular file."""

    fd: int
    offset: int
    size: int


class FileWrapper:
    """Iterates over `file.read(block_bytes)`; `close` closes it, when it can be closed."""

    def __init__(self, file: Any, block_bytes: int = 1 << 16) -> None:
        self.file = file
        self.block_bytes = block_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_bytes), b"")

    def close(self) -> None:
        close = getattr(self.file, "close", None)
        if close is not None:
            close()

    def span(self) -> Span | None:
        """The rest of the file, from where it has been read to; None when it is no real one: the
        descriptor of a `GzipFile` has other bytes than are read from it."""
        if not isinstance(getattr(self.file, "raw", self.file), io.FileIO):
            return None
        try:
            fd = self.file.fileno()
            offset = self.file.tell()
            status = os.fstat(fd)
        except (AttributeError, OSError, ValueError):  # in memory, a pipe, or closed
            return None
        # Those of /proc say that they are empty, and are not.
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None
        return Span(fd, offset, max(0, status.st_size - offset))
