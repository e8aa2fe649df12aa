"""Packets with descriptors beside them, over a SOCK_SEQPACKET pair (unix(7)).

Each arrives whole, in order, and with the descriptors it was sent with. Imported by the server and
by the fork server, on either side of the pair.
"""

import array
import socket
from collections.abc import Sequence

MAX_BYTES = 1 << 16
_MAX_DESCRIPTORS = 8
_ROOM = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, close-on-exec and blocking."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. Raises OSError; BlockingIOError when there is no room now."""
    control = []
    if descriptors:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sock.sendmsg([data], control, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """Take one packet and its descriptors, which are close-on-exec. Empty: the other end is closed.

    Raises OSError; BlockingIOError when there is none now.
    """
    data, control, _flags, _address = sock.recvmsg(
        MAX_BYTES, _ROOM, flags | socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(payload) - len(payload) % descriptors.itemsize
            descriptors.frombytes(payload[:whole])
    return data, list(descriptors)
