"""Who listens on a port and how much waits there, whosoever it is: sock_diag(7).

Sees all sockets of our network namespace. An accept queue that is empty says nothing about
handshakes on their way into it: those are `half_open`. Only looks. Imported by the server.
"""

import errno
import socket
import struct
from typing import NamedTuple

from sengu.posix import netlink

# States of linux/tcp_states.h, as bits. The kernel takes SYN_RECV for NEW_SYN_RECV as well, in
# which a handshake has been since Linux 4.4.
_SYN_RECV = 1 << 3
_LISTEN = 1 << 10
_ESTABLISHED = 1 << 1
_CLOSE_WAIT = 1 << 8  # the client has said all, and may still be answered

_PORTS = struct.Struct("!HH")  # inet_diag_sockid: ports, then addresses, interface, cookie
_SOCKID_BYTES = 48
_PORTS_OFFSET = 4  # inet_diag_msg: family, state, timer, retransmissions; then inet_diag_sockid
_HOST_OFFSET = 8
_PEER_OFFSET = 24
_NUMBERS = struct.Struct("=IIII")  # idiag_rqueue, idiag_wqueue, idiag_uid, idiag_inode
_NUMBERS_OFFSET = 56
_ATTRIBUTES_OFFSET = 72
_WITH_INFO = 1 << 1  # INET_DIAG_INFO, as a bit of idiag_ext
_INFO = 2
_IPV6_ONLY = 11  # INET_DIAG_SKV6ONLY, which comes unasked
_IDLE_MS = struct.Struct("=I4xI")  # tcp_info: tcpi_last_data_sent, tcpi_last_data_recv
_IDLE_OFFSET = 44
_RECEIVED = struct.Struct("=Q")  # tcpi_bytes_received
_RECEIVED_OFFSET = 128
_SENT_OFFSET = 200  # tcpi_bytes_sent, since Linux 4.19
_ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Listening(NamedTuple):
    """A socket that clients reach. `uid` is that of its owner, as our user namespace sees it."""

    inode: int
    host: str
    port: int
    family: socket.AddressFamily
    queue: int  # connections that wait for accept(2)
    backlog: int  # how many may wait
    uid: int
    ipv6_only: bool = False  # whether IPv4 clients cannot reach it (IPV6_V6ONLY in ipv6(7))


Peer = tuple[str, int]


class Traffic(NamedTuple):
    """What has gone over a connection, in bytes, and how long ago the last of it, in ms.

    All 0 while the handshake is not over.
    """

    received: int = 0
    sent: int = 0
    received_ms: int = 0
    sent_ms: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether the last word was the server's."""
        return self.sent > 0 and self.sent_ms <= self.received_ms


def listening(family: int, port: int) -> list[Listening]:
    """The TCP sockets of that family that listen on that port, at whatever address.

    `::` is one of AF_INET6 only, also where it takes IPv4 clients. Raises OSError.
    """
    return _sockets(_ask(family, _LISTEN, port))


def connections(family: int, port: int, host: str = "") -> dict[Peer, Traffic]:
    """Clients of that port, of that address of ours if one is given, whose connection stands or is
    being made, accepted or not.

    Takes longer the more there are, and looks at all of the machine. Raises OSError.
    """
    states = _SYN_RECV | _ESTABLISHED | _CLOSE_WAIT
    replies = _ask(family, states, port, _WITH_INFO)
    return {
        _peer(reply): _traffic(reply)
        for reply in replies
        if host in {"", _address(reply, _HOST_OFFSET)}
    }


def half_open(family: int, port: int) -> frozenset[Peer]:
    """The peers that have not finished their handshake with a listener of that family and port.

    Of clients that come by SYN cookies the kernel itself does not know. Raises OSError.
    """
    replies = _ask(family, _SYN_RECV, port)
    return frozenset(map(_peer, replies))


def _ask(family: int, states: int, port: int, extension: int = 0) -> list[bytes]:
    """One inet_diag_msg for each such socket. The kernel looks at the port, at no address."""
    request = netlink.INET_REQUEST.pack(family, socket.IPPROTO_TCP, extension, 0, states)
    try:
        return netlink.dump(request + _PORTS.pack(port, 0).ljust(_SOCKID_BYTES, b"\0"))
    except FileNotFoundError as error:
        message = "the kernel lacks tcp_diag; load that module"
        raise OSError(errno.EOPNOTSUPP, message) from error


def _sockets(replies: list[bytes]) -> list[Listening]:
    """Each once, although the kernel may tell of one twice."""
    return list({found.inode: found for found in map(_socket, replies)}.values())


def _socket(reply: bytes) -> Listening:
    queue, backlog, uid, inode = _NUMBERS.unpack_from(reply, _NUMBERS_OFFSET)
    port = _PORTS.unpack_from(reply, _PORTS_OFFSET)[0]
    family = socket.AddressFamily(reply[0])
    host = _address(reply, _HOST_OFFSET)
    told = netlink.attributes(reply, _ATTRIBUTES_OFFSET)
    ipv6_only = told.get(_IPV6_ONLY, b"\0") != b"\0"
    return Listening(inode, host, port, family, queue, backlog, uid, ipv6_only)


def _peer(reply: bytes) -> Peer:
    return _address(reply, _PEER_OFFSET), _PORTS.unpack_from(reply, _PORTS_OFFSET)[1]


def _traffic(reply: bytes) -> Traffic:
    info = netlink.attributes(reply, _ATTRIBUTES_OFFSET).get(_INFO, b"")
    if len(info) < _SENT_OFFSET + _RECEIVED.size:  # none in a handshake
        return Traffic()
    sent_ms, received_ms = _IDLE_MS.unpack_from(info, _IDLE_OFFSET)
    (received,) = _RECEIVED.unpack_from(info, _RECEIVED_OFFSET)
    (sent,) = _RECEIVED.unpack_from(info, _SENT_OFFSET)
    return Traffic(received, sent, received_ms, sent_ms)


def _address(reply: bytes, offset: int) -> str:
    family = socket.AddressFamily(reply[0])
    return socket.inet_ntop(family, reply[offset : offset + _ADDRESS_BYTES[family]])
