"""The sockets of one listener with `--reuseport`: one for each slot, on the same address.

The kernel numbers the sockets of such a group as they come, and moves the last one into the place
of one that goes (`posix.reuseport`). Here they come in the order of the slots, and only the last
one goes: so the number of a socket is its slot, and who is to get connections can be said by slots.
Imported by `listener` and the server.
"""

import contextlib
import itertools
import select
import socket
from collections.abc import Collection, Iterator

from sengu.errors import UsageError
from sengu.listeners.bind import open_first, open_next
from sengu.model.address import InetAddress
from sengu.posix import reuseport
from sengu.posix.listening import Peer, half_open
from sengu.posix.reuseport import Branch, Flow
from sengu.posix.store import Store


class Slots:
    """All of them, by slot. Held by the store as `NAME/SLOT`; a worker has copies of its own."""

    def __init__(self, store: Store, name: str, address: InetAddress, backlog: int) -> None:
        """`begin` comes next."""
        self._store = store
        self._name = name
        self._address = address
        self._backlog = backlog
        self._sockets: list[socket.socket] = []
        self._chosen: Collection[int] = ()

    def begin(self, count: int) -> None:
        """Take up those that are in the store; if there are none, open so many.

        Raises UsageError; nothing is left then.
        """
        self._adopt()
        try:
            self.of(0 if self._sockets else count - 1)
        except UsageError:
            self.leave()
            raise

    def _adopt(self) -> None:
        for name in map(f"{self._name}/{{}}".format, itertools.count()):
            held = self._store.take(name)
            if held is None:
                return
            sock = socket.socket(fileno=held.fd)
            if _is_shut_down(sock):  # and whoever did it was killed before the store knew
                sock.close()
                self._store.drop(name)
            else:
                self._sockets.append(sock)

    def __len__(self) -> int:
        return len(self._sockets)

    def of(self, slot: int) -> socket.socket:
        """The socket of that slot; it is opened, and all before it, if it was not there.

        Raises UsageError.
        """
        while len(self) <= slot:
            self._open()
        return self._sockets[slot]

    def choose(self, slots: Collection[int]) -> None:
        """Only these of all slots get new clients from now on, one as many as the other.

        Raises OSError.
        """
        self._chosen = frozenset(slots)
        self._attach()

    def lead(self, slot: int, port: int) -> None:
        """Who comes from that port of a client gets to that slot, be it chosen or not; 0: nobody
        does any more. Raises OSError.
        """
        self._attach(Branch(port, slot) if port else None)

    def _attach(self, branch: Branch | None = None) -> None:
        flow = Flow.SOURCE_PORT if self._address.udp else Flow.RANDOM
        ranges = list(_ranges(self._chosen or range(len(self))))
        program = reuseport.choose(ranges, flow, branch, ipv6=self._address.ipv6)
        reuseport.attach(self._sockets[0].fileno(), program)

    def is_empty(self, slot: int) -> bool:
        """Whether nobody waits in the slot's queue, if it has one: no connection, no datagram."""
        if slot >= len(self):
            return True
        poll = select.poll()
        poll.register(self._sockets[slot], select.POLLIN)
        return not any(events & select.POLLIN for _, events in poll.poll(0))

    def half_open(self) -> frozenset[Peer]:
        """Who has begun a connection to any of the slots, and is in no queue yet. Raises OSError.

        Those too who say nothing to workers that want to hear from clients first
        (TCP_DEFER_ACCEPT in tcp(7)).
        """
        if self._address.udp:
            return frozenset()
        sock = self._sockets[0]
        return half_open(sock.family, sock.getsockname()[1])

    def discard(self, slot: int) -> None:
        """Let go of the datagrams that wait there."""
        sock = self._sockets[slot]
        while not self.is_empty(slot):
            with contextlib.suppress(OSError):  # damaged, and so none
                sock.recv(1, socket.MSG_DONTWAIT)

    def close_last(self) -> None:
        """Give up the last slot. Whoever still waits there is turned away."""
        sock = self._sockets.pop()
        self._store.drop(f"{self._name}/{len(self)}")
        if not self._address.udp:
            # At once, whoever has a copy left: a listening socket that is shut down is in no group.
            sock.shutdown(socket.SHUT_RD)
        sock.close()

    def leave(self) -> None:
        """Close our copies."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _open(self) -> None:
        open_it = open_next if self._sockets else open_first
        sock = open_it(self._place(), self._backlog)
        try:
            self._store.hold(f"{self._name}/{len(self)}", sock.fileno())
        except OSError as error:
            sock.close()
            raise UsageError(f"cannot keep {self._address}: {error.strerror}") from error
        self._sockets.append(sock)

    def _place(self) -> InetAddress:
        """Where the first one is: a port 0 has become a number, and a name an address."""
        if not self._sockets:
            return self._address
        host, port = self._sockets[0].getsockname()[:2]
        return InetAddress(host, port, self._address.udp, self._address.ipv6)


def _is_shut_down(sock: socket.socket) -> bool:
    is_stream = sock.type == socket.SOCK_STREAM
    return is_stream and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def _ranges(slots: Collection[int]) -> Iterator[range]:
    """The same numbers as few ranges."""
    ordered = sorted(slots)
    start = 0
    for position, slot in enumerate(ordered, 1):
        if position == len(ordered) or ordered[position] != slot + 1:
            yield range(ordered[start], slot + 1)
            start = position
