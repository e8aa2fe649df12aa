"""File descriptors: who keeps which across exec.

Everything is close-on-exec; a child gets exactly what the supervisor places for it.
"""

import os
import socket
import struct
from collections.abc import Iterable

_NO_LINGER = struct.pack("ii", 0, 0)  # struct linger: on or off, seconds
FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def seal() -> None:
    """Mark whatever our own parent left open, above stderr, as close-on-exec."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd >= FIRST_PASSED_FD:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # the descriptor of the listing itself, closed by now
                continue


def fill_standard() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed: a file of ours would get there."""
    for fd in range(FIRST_PASSED_FD):
        try:
            os.fstat(fd)
        except OSError:  # EBADF: our parent closed it
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one


def copies(of: Iterable[int]) -> list[int]:
    """Our own, so that whoever has the originals may close them. Raises OSError."""
    made: list[int] = []
    try:
        for fd in of:
            made.append(os.dup(fd))
    except OSError:
        close_all(made)
        raise
    return made


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def close_at_once(fd: int) -> None:
    """Close what somebody sent us: a socket set to linger (socket(7)) would hold us up."""
    try:
        stranger = socket.socket(fileno=fd)
    except OSError:  # no socket
        os.close(fd)
        return
    with stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def pipe() -> tuple[int, int]:
    """A pipe whose read end does not block: (read end, write end)."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    return read_end, write_end


def write_end_of(read_end: int) -> int:
    """One more write end of a pipe of which we have the read end. Raises OSError."""
    return os.open(f"/proc/self/fd/{read_end}", os.O_WRONLY | os.O_CLOEXEC)


def has_terminal() -> bool:
    """Whether we have a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO: no controlling terminal
        return False
    return True
