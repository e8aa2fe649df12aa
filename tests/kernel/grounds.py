"""A service's programs and sockets of ours in one group, for the tests of steering."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

from sengu.model.address import InetAddress
from sengu.passage.group import Group, Look
from sengu.passage.places import Ground
from sengu.posix.loop import Loop
from tests.kernel.children import Child, open_descriptors
from tests.kernel.groups import PORT, group

HOST = "127.0.0.1"
PATIENCE_SECONDS = 20.0


class Nobody:
    """Implements `group.Processes`: no worker has a process that could be found."""

    def pid_of(self, worker: int) -> int | None:
        return None

    def said_ready(self, worker: int) -> bool:
        return False


class Living(Nobody):
    """Workers with processes; counts how often it is asked whether one has said READY=1."""

    def __init__(self, pids: Mapping[int, int]) -> None:
        self._pids = pids
        self.asked = 0

    def pid_of(self, worker: int) -> int | None:
        return self._pids.get(worker)

    def said_ready(self, worker: int) -> bool:
        self.asked += 1
        return False


def program(count: int, host: str = HOST) -> Child:
    """One with so many sockets, which accepts nobody."""

    def listen(child: Child) -> None:
        members = group(host, count)
        child.tell("listens")
        child.wait_for_go()
        del members

    child = Child(listen)
    child.wait_to_hear("listens")
    return child


@contextmanager
def ground(host: str = HOST) -> Iterator[Ground]:
    address = InetAddress(host, PORT, ipv6=":" in host)
    with closing(Loop()) as loop:
        yield Ground(loop, Group(address, Nobody()))


def see(where: Ground) -> Look:
    return where.group.look((), None)


def waiting(where: Ground, inodes: Iterable[int]) -> int:
    """How many connections wait in the queues of those sockets."""
    sockets = see(where).sockets
    return sum(sockets[inode].queue for inode in inodes)


@contextmanager
def relays_that_end(where: Ground) -> Iterator[None]:
    """Goes on until no descriptor is left of what the body has begun."""
    before = open_descriptors()
    yield
    end = where.loop.now() + PATIENCE_SECONDS
    while left := open_descriptors() - before:
        assert where.loop.now() < end, left
        where.loop.run_once(where.loop.now() + 0.05)
