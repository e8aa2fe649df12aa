"""The group: all sockets that listen on one address, and which worker each belongs to.

Only looks. Everybody in a group has bound the very same address with SO_REUSEPORT, or the kernel
would not have let them. Imported by `passage`.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import msgspec

from sengu.model.address import InetAddress
from sengu.passage.relay import begin_to_connect
from sengu.posix.listening import Listening, Peer, Traffic, connections, listening
from sengu.posix.procfs import held_sockets, holders, parent_of, variable_of

_ANY_PORT = 0
_NOBODY = 0  # no worker has this number
_DOORS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # by which a client on this machine gets in
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_IP_MINTTL = 21
_IPV6_MINHOPCOUNT = 73
_MAX_HOPS = 255  # others begin with less
_MAX_ANCESTORS = 64
_RUNNER = "SENGU_RUNNER"


class Processes(Protocol):
    """Who knows the workers' processes: the crew."""

    def pid_of(self, worker: int) -> int | None:
        """None when it has none, or none any more."""

    def said_ready(self, worker: int) -> bool:
        """Whether it has said READY=1 to its NOTIFY_SOCKET."""


class Look(msgspec.Struct, frozen=True):
    """One look at a group: its sockets by inode, and the worker of each as far as it is known."""

    sockets: Mapping[int, Listening]
    owners: Mapping[int, int]

    def of(self, workers: Iterable[int]) -> frozenset[int]:
        """The inodes of their sockets."""
        among = set(workers)
        return frozenset(inode for inode, owner in self.owners.items() if owner in among)

    def waiting(self, workers: Iterable[int]) -> int:
        """How many connections wait to be accepted by them."""
        return sum(self.sockets[inode].queue for inode in self.of(workers))


class Group:
    """The sockets on `address`. Sockets of ours are left out (`disown`)."""

    def __init__(self, address: InetAddress, processes: Processes) -> None:
        self.address = address
        self.family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
        self._host = address.host
        self._processes = processes
        self._owners: dict[int, int] = {}
        self._ours: set[int] = set()

    @property
    def is_ipv6(self) -> bool:
        return self.address.ipv6

    def connect(self, through: socket.socket | None = None) -> socket.socket:
        """A socket (`through`, if given) that is being connected to whoever gets new connections.

        Raises OSError; then it is closed.
        """
        made = through or socket.socket(self.family, socket.SOCK_STREAM)
        return begin_to_connect(made, (_DOORS.get(self._host, self._host), self.address.port))

    def disown(self, inodes: Iterable[int]) -> None:
        """These are ours, whoever seems to hold them."""
        self._ours.update(inodes)

    def meet_strangers(self) -> int:
        """Before the first worker: whoever is there is none of ours; how many. Raises OSError."""
        strangers = [one.inode for one in self._all()]
        self._owners.update(dict.fromkeys(strangers, _NOBODY))
        return len(strangers)

    def look(self, living: Iterable[int], newest: int | None) -> Look:
        """Who is there now. Sockets that nobody can be found to hold, as those in a container may
        be, belong to `newest`, the worker that was started last. Raises OSError.
        """
        found = {one.inode: one for one in self._all() if one.inode not in self._ours}
        self._owners = {inode: who for inode, who in self._owners.items() if inode in found}
        unknown = found.keys() - self._owners.keys()
        if unknown:
            self._find_owners(unknown, living, newest)
        return Look(found, dict(self._owners))

    def count(self) -> int:
        """How many there are, ours included. Raises OSError."""
        return len(self._all())

    def clients(self) -> Mapping[Peer, Traffic]:
        """Who is connected, or about to be, to any of them. Raises OSError."""
        host = "" if self._host in _DOORS else self._host
        return connections(self.family, self.address.port, host)

    def bind_beside(self, look: Look) -> socket.socket:
        """A socket of ours that may listen where those do. Raises OSError.

        The kernel lets only one user in; root can give a socket to that one (fchown(2)).
        """
        made = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self.family == socket.AF_INET6:  # with another answer it would be another group
                is_only = any(one.ipv6_only for one in look.sockets.values())
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_only)
            theirs = {one.uid for one in look.sockets.values()}
            if theirs and theirs != {os.geteuid()}:
                os.fchown(made.fileno(), theirs.pop(), -1)
            made.bind((self._host, self.address.port))
        except OSError:
            made.close()
            raise
        return made

    @contextmanager
    def join(self) -> Iterator[socket.socket]:
        """Be in it for a moment, as the last, and let nobody in. Raises OSError.

        Who wants to connect meanwhile asks again a second later, and gets to another.
        """
        look = Look({one.inode: one for one in self._all()}, {})
        with self.bind_beside(look) as guest:
            _turn_away(guest)
            guest.listen(1)
            yield guest

    def _all(self) -> list[Listening]:
        found = listening(self.family, self.address.port)
        return [one for one in found if one.host == self._host]

    def elsewhere(self, worker: int) -> str:
        """What the worker listens on instead, in words; empty when it does not, or is hidden."""
        pid = self._processes.pid_of(worker)
        if pid is None:
            return ""
        found = {one.inode: one for family in _FAMILIES for one in listening(family, _ANY_PORT)}
        held = holders(found.keys())
        places = {
            _spell(found[inode])
            for inode, (holder, _fd) in held.items()
            if _belongs(holder, {pid: worker})
        }
        return ", ".join(sorted(places))

    def _find_owners(self, unknown: set[int], living: Iterable[int], newest: int | None) -> None:
        pids = {pid: worker for worker in living if (pid := self._processes.pid_of(worker))}
        held = holders(unknown, but_not={os.getpid(), os.getppid()})
        # Copies of ours, of sockets that their program has closed, were held before our time.
        copies = held_sockets(os.getpid(), unknown - held.keys())
        for inode in unknown - copies:
            holder = held.get(inode)
            worker = None if holder is None else _belongs(holder[0], pids)
            if worker is None:
                worker = newest
            if worker is not None:
                self._owners[inode] = worker


def _belongs(pid: int, leaders: Mapping[int, int]) -> int | None:
    """Whose process it is: a worker leads its session, and is an ancestor of all it starts.

    A container is an engine's child; it has been told who its runner is (`container.command`).
    """
    try:
        worker = leaders.get(os.getsid(pid))
    except OSError:  # it has exited
        return None
    for _ in range(_MAX_ANCESTORS):
        if worker is not None or pid <= 1:
            return worker
        worker = leaders.get(pid)
        if worker is None and (runner := variable_of(pid, _RUNNER)).isdecimal():
            worker = leaders.get(int(runner), _NOBODY)  # one that was killed: its container stays
        pid = parent_of(pid)
    return None


def _turn_away(listener: socket.socket) -> None:
    """Have the kernel drop what comes by any router, or could have (ip(7), IP_MINTTL)."""
    listener.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _MAX_HOPS)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, _MAX_HOPS)


def _spell(one: Listening) -> str:
    host = f"[{one.host}]" if ":" in one.host else one.host
    return f"{host}:{one.port}"
