"""Where processes leave what they have written down, for the server to collect.

It is the memory file of the scoreboard, behind its lines: all have it, and each write goes to the
end, whole (O_APPEND). Imported by server, fork servers and workers.
"""

import fcntl
import os
import struct
from collections.abc import Iterator

from sengu.wire.scoreboard import SIZE_BYTES

STACKS = "sengu-stacks"  # the memory file that faulthandler writes to, in each process
_HEAD = struct.Struct("=II")  # pid, and length of the text that follows
_MOST_BYTES = 64 << 20  # and not more, if nobody collects
_PIPE_BYTES = 4096  # PIPE_BUF: written to a pipe that others write to, it stays together (pipe(7))


def open_pages(fd: int) -> None:
    """Let writes go to the end. For all who have the file."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def clear(fd: int) -> None:
    os.ftruncate(fd, SIZE_BYTES)


def write(fd: int, text: bytes) -> None:
    """Leave a page. It is left out when too many lie there, or there is no memory."""
    if os.fstat(fd).st_size + len(text) > SIZE_BYTES + _MOST_BYTES:
        return
    try:
        os.write(fd, _HEAD.pack(os.getpid(), len(text)) + text)
    except OSError:  # the log has it
        return


def read(fd: int) -> Iterator[tuple[int, str]]:
    """Pids and texts of those that are there, and whole."""
    data = os.pread(fd, _MOST_BYTES, SIZE_BYTES)
    at = 0
    while at + _HEAD.size <= len(data):
        pid, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):  # it is being written just now
            return
        yield pid, data[at : at + length].decode(errors="replace")
        at += length


def pieces(text: bytes) -> Iterator[bytes]:
    """Whole lines, as many at a time as are written at once to a pipe of several writers."""
    piece = b""
    for line in text.splitlines(keepends=True):
        if len(piece) + len(line) > _PIPE_BYTES and piece:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece
