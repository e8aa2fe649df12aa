"""Questions to the kernel about sockets, and its answers: netlink(7), sock_diag(7).

The kernel has an answer, or the first part of one, before `send` returns, and the next part before
it hands out the one before: nothing here waits. What is asked is up to `sockdiag` (one exact
socket) and `listening` (all that listen on a port), the only ones to import this.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

INET_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, ext, pad, states

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_ERRNO = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length including this head, type
_REPLY_BYTES = 32768  # the most that the kernel puts into one part
_DUMP_ATTEMPTS = 8


class _Interrupted(Exception):
    """The table has changed under the dump."""


def ask(question: bytes) -> bytes | None:
    """Send one exact look-up and return the payload of the answer, None for "no such socket".

    A missing diag module is also reported as ENOENT: the caller has to tell these two apart.
    """
    with _put(question, _NLM_F_REQUEST) as netlink:
        answer = netlink.recv(_REPLY_BYTES, socket.MSG_DONTWAIT)
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _NLMSG_ERROR:
        return answer[_HEADER.size : length]
    code = _code(answer, _HEADER.size)
    if code == errno.ENOENT:
        return None
    raise OSError(code, os.strerror(code))


def dump(question: bytes) -> list[bytes]:
    """The payloads of all answers to a question that many sockets may fit.

    A socket that comes or goes meanwhile may be missed, and another be told twice. Raises OSError;
    with ENOENT if the module for this protocol is missing.
    """
    for _ in range(_DUMP_ATTEMPTS):
        with _put(question, _NLM_F_REQUEST | _NLM_F_DUMP) as netlink:
            try:
                return list(_answers(netlink))
            except _Interrupted:
                continue
    raise OSError(errno.EAGAIN, "the kernel's table of sockets changes faster than it is read")


def attributes(reply: bytes, offset: int) -> dict[int, bytes]:
    """The attributes from `offset` on, each padded to four bytes (netlink(7))."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(reply):
        length, kind = _ATTRIBUTE.unpack_from(reply, offset)
        found[kind] = reply[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _put(question: bytes, flags: int) -> socket.socket:
    """A socket on which the answer is."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    try:
        length = _HEADER.size + len(question)
        netlink.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, flags, 0, 0) + question)
    except OSError:
        netlink.close()
        raise
    return netlink


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    """The messages of all parts up to the last, which says DONE and how it went."""
    while True:
        part = netlink.recv(_REPLY_BYTES, socket.MSG_DONTWAIT)
        offset = 0
        while offset < len(part):
            length, kind, flags, *_ = _HEADER.unpack_from(part, offset)
            if flags & _NLM_F_DUMP_INTR:
                raise _Interrupted
            if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                if code := _code(part, offset + _HEADER.size):
                    raise OSError(code, os.strerror(code))
                return
            yield part[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _code(message: bytes, offset: int) -> int:
    """The number of an error; the kernel tells it negative."""
    code: int = -_ERRNO.unpack_from(message, offset)[0]
    return code
