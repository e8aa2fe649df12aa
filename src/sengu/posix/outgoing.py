"""What the kernel still has of what was written to a socket: SIOCOUTQ (tcp(7), unix(7)).

A socket takes more only when much of its buffer is free again; for a client that reads slowly this
is long after it has read something. Imported by workers.
"""

import fcntl
import struct
import termios

_COUNT = struct.Struct("i")


def untaken(fd: int) -> int:
    """Bytes that the other end has not acknowledged; of a UNIX socket, not read. Raises OSError."""
    answer = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_COUNT.size))
    return int(_COUNT.unpack(answer)[0])
