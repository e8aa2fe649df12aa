"""The other end of a connection, which belongs to another process: sock_diag(7).

Only exact look-ups live here: no dump of a table that may have 100 000 lines (`listening` has
those that are short), and no word about processes (`procfs` matches an inode with its holder).
Imported by the server's probe.
"""

import errno
import os
import socket
import struct

from sengu.posix import netlink

_INET_PORTS = struct.Struct(
    "!HH"
)  # inet_diag_sockid: ports, then both addresses, interface, cookie
_INET_ADDRESS_BYTES = 16
_INET_STATE_OFFSET = 1  # inet_diag_msg
_INET_INODE_OFFSET = 68
_UNIX_REQUEST = struct.Struct(
    "=BBHIII"
)  # unix_diag_req: family, protocol, pad, states, inode, show
_UNIX_REPLY_BYTES = 16  # unix_diag_msg, attributes follow
_U32 = struct.Struct("=I")
_ANY_STATE = 0xFFFFFFFF
_ANY_COOKIE = b"\xff" * 8

_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
_UNIX_DIAG_SHUTDOWN = 6  # is in every answer
_RCV_SHUTDOWN = 1

_TCP_LISTEN = 10
_TCP_CLOSED = frozenset(
    {4, 5, 6, 7, 9, 11}
)  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, LAST_ACK, CLOSING

_InetAddress = tuple[str, int] | tuple[str, int, int, int]  # as getsockname() gives it


def accepted_inode(client: socket.socket) -> int:
    """The inode of the other end of `client`, a connected stream socket with a peer on this host.

    0 while the connection waits in the listener's accept queue: the kernel gives a socket its
    inode in accept(2). Raises ConnectionResetError when the other end has been closed (by whom
    cannot be known any more), and OSError when the kernel does not answer such questions.
    """
    if client.family == socket.AF_UNIX:
        return _unix_accepted_inode(client)
    return _inet_accepted_inode(client)


def _inet_accepted_inode(client: socket.socket) -> int:
    """See accepted_inode. Also finds a peer of the other IP version (::ffff:127.0.0.1), because
    the kernel keeps both in one table under their IPv4 addresses."""
    names = _names(client)
    if names is None:
        raise _closed()
    here, there = names
    reply = _inet_look_up(client.family, there, here)
    if reply is None:
        # Nothing has this address, or nobody answers for TCP. We ourselves are surely there,
        # unless a reset has just taken the connection apart.
        if _inet_look_up(client.family, here, there) is None and _names(client) is not None:
            raise OSError(errno.EOPNOTSUPP, "the kernel lacks tcp_diag; load that module")
        raise _closed()
    state = reply[_INET_STATE_OFFSET]
    inode = _u32(reply, _INET_INODE_OFFSET)
    if state == _TCP_LISTEN:
        # The look-up falls back to the listener. With a SYN cookie and a full accept queue that
        # is all there is on the other side, although the client counts as connected.
        return 0
    if inode == 0 and state in _TCP_CLOSED:
        raise _closed()
    return inode


def _inet_look_up(family: int, local: _InetAddress, remote: _InetAddress) -> bytes | None:
    """The inet_diag_msg of the TCP socket that has these two addresses, None if there is none."""
    interface = local[3] if len(local) == 4 else 0  # a link-local address is one per interface
    return netlink.ask(
        b"".join(
            (
                netlink.INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE),
                _INET_PORTS.pack(local[1], remote[1]),
                socket.inet_pton(family, local[0]).ljust(_INET_ADDRESS_BYTES, b"\0"),
                socket.inet_pton(family, remote[0]).ljust(_INET_ADDRESS_BYTES, b"\0"),
                _U32.pack(interface),
                _ANY_COOKIE,
            )
        )
    )


def _unix_accepted_inode(client: socket.socket) -> int:
    """See accepted_inode. A UNIX client is joined to its peer at connect, before the accept."""
    inode = os.fstat(client.fileno()).st_ino
    reply = netlink.ask(
        _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ANY_STATE, inode, _UDIAG_SHOW_PEER) + _ANY_COOKIE
    )
    if reply is None:  # we hold it, so it exists
        raise OSError(errno.EOPNOTSUPP, "the kernel lacks unix_diag; load that module")
    attributes = netlink.attributes(reply, _UNIX_REPLY_BYTES)
    peer = attributes.get(_UNIX_DIAG_PEER)
    if peer is None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    peer_inode = _u32(peer, 0)
    if peer_inode == 0 and attributes[_UNIX_DIAG_SHUTDOWN][0] & _RCV_SHUTDOWN:
        raise _closed()
    return peer_inode


def _names(client: socket.socket) -> tuple[_InetAddress, _InetAddress] | None:
    """Both addresses of the connection, None if a reset has taken it apart."""
    try:
        return client.getsockname(), client.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return None
        raise


def _u32(data: bytes, offset: int) -> int:
    number: int = _U32.unpack_from(data, offset)[0]
    return number


def _closed() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the other end has been closed")
