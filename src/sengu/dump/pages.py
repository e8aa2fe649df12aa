"""Where processes leave what they have written down, for the server to collect.

It is the memory file of the scoreboard, behind its lines: all have it, and each write goes to the
end, whole (O_APPEND). Imported by server, fork servers and workers.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

from sengu.wire.scoreboard import SIZE_BYTES

STACKS = "sengu-stacks"  # the memory file that faulthandler writes to, in each process
_HEAD = struct.Struct("=II")  # pid, and length of the text that follows
_MOST_BYTES = 64 << 20  # and not more, if nobody collects
_BLOCK_BYTES = 512  # of st_blocks (stat(3type))
_PIPE_BYTES = 4096  # PIPE_BUF: written to a pipe that others write to, it stays together (pipe(7))


def open_pages(fd: int) -> None:
    """Let writes go to the end. For all who have the file."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def clear(fd: int) -> int:
    """Let go of the memory that pages take; returns where the next one will begin.

    The file keeps its length: it is sealed, as who could make it shorter could end the server.
    """
    end = os.fstat(fd).st_size
    length = (end - SIZE_BYTES) // mmap.PAGESIZE * mmap.PAGESIZE
    if length:
        # Whoever else has the file may have made it longer than can be mapped.
        with (
            contextlib.suppress(OSError, ValueError, OverflowError),
            mmap.mmap(fd, length, offset=SIZE_BYTES) as behind,
        ):
            behind.madvise(mmap.MADV_REMOVE)
    return end


def write(fd: int, text: bytes) -> None:
    """Leave a page. It is left out when too many lie there, or there is no memory."""
    if os.fstat(fd).st_blocks * _BLOCK_BYTES + len(text) > _MOST_BYTES:
        return
    try:
        os.write(fd, _HEAD.pack(os.getpid(), len(text)) + text)
    except OSError:  # the log has it
        return


def read(fd: int, at: int) -> tuple[dict[int, str], int]:
    """Texts by pid of those that have come since, and where the next one will begin."""
    try:
        data = os.pread(fd, _MOST_BYTES, at)
    except OSError:  # EINVAL: somebody has made it as long as can be
        return {}, at
    found = {}
    begin = 0
    while begin + _HEAD.size <= len(data):
        pid, length = _HEAD.unpack_from(data, begin)
        text, end = begin + _HEAD.size, begin + _HEAD.size + length
        if end > len(data):  # it is being written just now
            break
        found[pid] = data[text:end].decode(errors="replace")
        begin = end
    return found, at + begin


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
