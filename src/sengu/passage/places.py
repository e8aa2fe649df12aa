"""Places: the numbers that the kernel gives the sockets of a group, and which of ours has which.

Who asks the kernel is told by it: a connection from a source port of ours is sent to one place, and
seen to arrive. Imported by `removal` and `by_member`.
"""

import select
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sengu.passage.group import Group
from sengu.passage.relay import pass_on
from sengu.posix import reuseport
from sengu.posix.listening import half_open
from sengu.posix.loop import Loop

_LOOK_MS = 5
_LOOKS = 40  # after which a connection is taken for lost, as one to a full queue is


class Ground(msgspec.Struct, frozen=True):
    """The group, and who relays what reaches one of our sockets in it."""

    loop: Loop
    group: Group


def choose(
    ground: Ground,
    through: socket.socket,
    ranges: Sequence[range],
    branch: reuseport.Branch | None = None,
) -> None:
    """Let only those at `ranges` get new connections; `through` is any member. Raises OSError."""
    program = reuseport.choose(ranges, reuseport.Flow.RANDOM, branch, ipv6=ground.group.is_ipv6)
    reuseport.attach(through.fileno(), program)


def find_places(
    ground: Ground,
    through: socket.socket,
    ours: Sequence[socket.socket],
    chosen: Sequence[range],
    likely: Iterable[int] = (),
) -> dict[int, socket.socket]:
    """The place of each of `ours`, those at `likely` places found without asking anybody else.

    `chosen` get all other connections meanwhile. One that cannot be found is left out. Raises
    OSError.
    """
    found: dict[int, socket.socket] = {}
    count = ground.group.count()
    first = [place for place in likely if place < count]
    for place in [*first, *(n for n in range(count) if n not in first)]:
        missing = [sock for sock in ours if sock not in found.values()]
        if not missing:
            break
        sock = _who_is_at(ground, through, (place, missing), chosen)
        if sock is not None:
            found[place] = sock
    choose(ground, through, chosen)
    return found


def wait_for_handshakes(ground: Ground) -> None:
    """Until those that are under way with any of the group have ended, for so long as one may take.

    The loop stands still meanwhile. Whoever begins one later is not waited for. Raises OSError.
    """
    group = ground.group
    peers = half_open(group.family, group.address.port)
    for _ in range(_LOOKS):
        if not peers:
            return
        select.poll().poll(_LOOK_MS)
        peers &= half_open(group.family, group.address.port)


def ranges_of(numbers: Iterable[int]) -> list[range]:
    """The numbers as ranges without gaps."""
    found: list[range] = []
    for number in sorted(numbers):
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def _who_is_at(
    ground: Ground,
    through: socket.socket,
    where: tuple[int, Sequence[socket.socket]],
    chosen: Sequence[range],
) -> socket.socket | None:
    place, among = where
    with socket.socket(ground.group.family, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
        choose(ground, through, chosen, reuseport.Branch(port, place))
        ground.group.connect(probe)
        for sock in _arrivals(among, lambda: _has_got_through(ground, probe, port)):
            if _has_come(ground, sock, port):
                return sock
    return None


def _has_got_through(ground: Ground, probe: socket.socket, port: int) -> bool:
    """Whether it waits in a queue by now, or was refused."""
    waiting = select.poll()
    waiting.register(probe, select.POLLOUT)
    if not waiting.poll(0):
        return False
    peers = half_open(ground.group.family, ground.group.address.port)
    return port not in {peer_port for _, peer_port in peers}


def _arrivals(
    among: Sequence[socket.socket], is_over: Callable[[], bool]
) -> Iterator[socket.socket]:
    """Those at which somebody waits, until nobody is to come any more."""
    waiting = select.poll()
    for sock in among:
        # One that hands over who has spoken (tcp(7), TCP_DEFER_ACCEPT) would keep ours waiting.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        sock.setblocking(False)
        waiting.register(sock, select.POLLIN)
    by_number = {sock.fileno(): sock for sock in among}
    for _ in range(_LOOKS):
        is_last = is_over()  # before the look: who comes in between is seen
        for number, _events in waiting.poll(0 if is_last else _LOOK_MS):
            yield by_number[number]
        if is_last:
            return


def _has_come(ground: Ground, listener: socket.socket, port: int) -> bool:
    """Whether the one from that source port has waited there; others are relayed."""
    has_come = False

    def is_probe(peer: int) -> bool:
        nonlocal has_come
        has_come = has_come or peer == port
        return peer == port

    pass_on(ground.loop, listener, ground.group.connect, skip=is_probe)
    return has_come
