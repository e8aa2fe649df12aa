"""The client of the socket manager: sockets that are opened at run time, and outlive who has asked.

For any process of a worker, whoever has started it: all that it needs is SENGU_SOCKETS in its
environment. docs/sockets.md has the protocol for programs without sengu. Imported by worker classes
and their users.
"""

import errno
import os
import socket
import struct
import time

from sengu.errors import UsageError
from sengu.posix import clock, packets
from sengu.posix.descriptors import close_all
from sengu.wire import sockets as wire

_PAUSE_SECONDS = 0.05
_TIMEVAL = struct.Struct("@ll")


class SocketManager:
    """Asks sengu for sockets. It has no state: threads and forked processes may share one.

    Each method waits for the answer, `timeout_seconds` at most, and raises OSError when there is no
    socket, with the errno of bind(2) and what to do; TimeoutError when there is no answer. All who
    ask for the same get the same socket, in whatever worker and generation. Close yours when you
    are done with it: it stays open here as long as a generation lives that has asked for it.
    """

    def __init__(self, name: str | None = None, timeout_seconds: float = 10.0) -> None:
        """`name` is that of the manager, which is in the environment. Raises UsageError."""
        found = name or os.environ.get(wire.VARIABLE, "")
        if not found:
            raise UsageError(
                f"{wire.VARIABLE} is not set, so there is no socket manager to ask; run this with "
                "sengu start, serve or work, and keep the variable in the environment"
            )
        self._address = "\0" + found.removeprefix("@")
        self._timeout_seconds = timeout_seconds

    def listen_tcp(self, host: str, port: int, backlog: int | None = None) -> socket.socket:
        """A listening TCP socket. `host` is an address or a name of this machine, empty for all of
        IPv4; with port 0 the kernel finds a port, the same one for all who ask for 0.
        """
        number = _resolve(host, port, socket.SOCK_STREAM)
        return _with_backlog(self._ask(wire.Tcp(port, number)), backlog)

    def listen_udp(self, host: str, port: int) -> socket.socket:
        """A bound UDP socket."""
        return self._ask(wire.Udp(port, _resolve(host, port, socket.SOCK_DGRAM)))

    def listen_unix(self, path: str, backlog: int | None = None) -> socket.socket:
        """A listening UNIX stream socket; `@NAME` is one in the abstract namespace. One whose file
        was removed is bound anew."""
        where = path if path.startswith("@") else os.path.abspath(path)
        return _with_backlog(self._ask(wire.Unix(where)), backlog)

    def _ask(self, request: wire.Request) -> socket.socket:
        """Until there is an answer: a server that was killed in between has given none."""
        packet = wire.encode(request)
        end = clock.monotonic() + self._timeout_seconds
        while (left := end - clock.monotonic()) > 0:
            found = self._ask_once(packet, left)
            if found is not None:
                return found
            time.sleep(min(_PAUSE_SECONDS, left))
        raise TimeoutError(
            errno.ETIMEDOUT,
            f"sengu has not answered within {self._timeout_seconds:g} seconds; "
            "see `sengu status` and its log",
        )

    def _ask_once(self, packet: bytes, left: float) -> socket.socket | None:
        """None when the connection ended without an answer, or the time is over."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            _limit(sock, left)
            try:
                sock.connect(self._address)
                packets.send(sock, packet)
                data, fds = packets.receive(sock)
            except ConnectionRefusedError as error:
                raise ConnectionRefusedError(
                    error.errno, "the sengu that has started this process is gone; start it again"
                ) from error
            except (ConnectionError, BlockingIOError):  # a server was killed, or the time is over
                return None
        if not data:
            return None
        answer = wire.decode_answer(data)
        if isinstance(answer, wire.Refused):
            close_all(fds)
            raise OSError(answer.errno or errno.EINVAL, answer.problem)
        if not fds:  # we have no room for another descriptor
            raise OSError(errno.EMFILE, "no descriptor is free for the socket; raise ulimit -n")
        return socket.socket(fileno=fds[0])


def _resolve(host: str, port: int, kind: socket.SocketKind) -> str:
    """The manager resolves nothing, as that may take its time."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # As bytes: for text Python loads its IDNA codec, which a process of another user may not find.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name or None, port, family, kind, flags=socket.AI_PASSIVE)
    return str(found[0][4][0])


def _limit(sock: socket.socket, seconds: float) -> None:
    """By the kernel: with Python's own timeout connect(2) fails at once when the queue is full."""
    whole, part = divmod(max(seconds, 0.001), 1)
    limit = _TIMEVAL.pack(int(whole), int(part * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)


def _with_backlog(sock: socket.socket, backlog: int | None) -> socket.socket:
    if backlog is not None:
        sock.listen(backlog)
    return sock
