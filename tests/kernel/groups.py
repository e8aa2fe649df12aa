"""Groups of SO_REUSEPORT sockets for the tests of this tier, and their clients."""

import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable

PORT = 8080  # in a network namespace of the test's own, every port is free
_BACKLOG = 1000
_LINGER_RESET = struct.pack("ii", 1, 0)  # close() leaves no TIME_WAIT, so the port is free again
_PATIENCE_SECONDS = 10.0


def member(host: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """One more socket in the group at `host`; a TCP one listens."""
    found = socket.socket(_family(host), kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.setblocking(False)
    found.bind((host, PORT))
    if kind is socket.SOCK_STREAM:
        found.listen(_BACKLOG)
    return found


def group(
    host: str, size: int, kind: socket.SocketKind = socket.SOCK_STREAM
) -> list[socket.socket]:
    """Its sockets in the order of their numbers."""
    return [member(host, kind) for _ in range(size)]


def connect(host: str, source_port: int = 0, source_host: str = "") -> socket.socket:
    """A client that has finished its handshake."""
    client = socket.socket(_family(host))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.settimeout(_PATIENCE_SECONDS)
    client.bind((source_host, source_port))
    client.connect((host, PORT))
    return client


def shares(members: Iterable[socket.socket], hosts: Iterable[str], clients: int) -> Counter[int]:
    """How many of `clients` each member gets, by number. On loopback a connection is in its accept
    queue when connect() returns: nothing is to be waited for."""
    members = list(members)
    found: Counter[int] = Counter()
    for host in hosts:
        for _ in range(clients):
            connect(host).close()
            found[taker(members)] += 1
    return found


def taker(members: Iterable[socket.socket]) -> int:
    """The number of the one that has a connection in its queue, which is accepted."""
    for number, one in enumerate(members):
        with contextlib.suppress(BlockingIOError):  # not this one
            one.accept()[0].close()
            return number
    raise AssertionError("nobody has got the connection")


def accepted(members: Iterable[socket.socket], expected: int) -> list[socket.socket]:
    """So many connections from their queues. By a timer: one that has moved may wake nobody."""
    members = list(members)
    found: list[socket.socket] = []
    end = time.monotonic() + _PATIENCE_SECONDS
    while len(found) < expected:
        assert time.monotonic() < end, f"{len(found)} of {expected} came"
        for one in members:
            with contextlib.suppress(BlockingIOError):  # its queue is empty
                found.append(one.accept()[0])
    return found


def become_nobody() -> None:
    """Without any capability, as after setpriv(1)."""
    os.setgroups(())
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
