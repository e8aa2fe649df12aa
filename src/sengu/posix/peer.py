"""Who is at the other end of a UNIX socket (unix(7)), and acting with no more rights than that.

Imported by the server, where processes of other users may ask it for something.
"""

import array
import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import msgspec

from sengu.posix import prctl

_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77  # since Linux 6.5
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_NUMBER = struct.Struct("i")
_MOST_BYTES = 1024  # what Python reads of an option


class Peer(msgspec.Struct, frozen=True):
    """A process as it was when it connected. `pid` is 0 if our pid namespace has none for it."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def peer_of(sock: socket.socket) -> Peer:
    """Who has connected to the socket. Raises OSError."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    groups = array.array("I")
    # More groups than there is room for: it gets what it may have without them.
    with contextlib.suppress(OSError):
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES))
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    return Peer(pid, uid, gid, tuple(groups))


def has_ended(sock: socket.socket) -> bool:
    """Whether the process that connected is gone, so that its pid may mean another by now.

    A kernel before 6.5 does not know (ENOPROTOOPT); then it is taken for living.
    """
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _NUMBER.size)
    except OSError as error:  # EINVAL: one that was reaped, up to Linux 6.15
        return error.errno in {errno.ESRCH, errno.EINVAL}
    (pidfd,) = _NUMBER.unpack(data)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def acting_as(peer: Peer | None) -> Iterator[None]:
    """Let the kernel treat us as that user in what we open, bind and remove; None: as we are.

    For root only; others get PermissionError. What runs beside us must be no thread of ours.
    """
    if peer is None:
        yield
        return
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    is_dumpable = prctl.is_dumpable()
    with contextlib.ExitStack() as back:
        # Changes of ids make a process one that others may not look into (prctl(2)).
        back.callback(prctl.set_dumpable, is_dumpable)
        os.setgroups(peer.groups)
        back.callback(os.setgroups, groups)
        os.setegid(peer.gid)
        back.callback(os.setegid, gid)
        os.seteuid(peer.uid)
        back.callback(os.seteuid, uid)
        yield
