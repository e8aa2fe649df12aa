"""Takes sockets of ours out of a group, with nothing lost.

When a socket closes, the last one of the group moves to its place, so each closing is announced:
new connections are kept from the one that is to move and from the one that is to close, then what
waits there is served, then it is closed, then the choice is widened again. That needs to know at
which place each of ours is; who asks is told by the kernel, as a connection from a source port of
ours is sent to each place in turn, and seen to arrive. Imported by `by_index`.
"""

import select
import socket
from collections.abc import Iterable, Sequence

from sengu.passage.group import Group
from sengu.passage.relay import pass_on
from sengu.posix import reuseport
from sengu.posix.loop import Loop

_ARRIVES_IN_MS = 200


class Removal:
    """`through` is a socket of the group that stays, if there is one that we have.

    With `migrates` the kernel moves what waits in a closed one, else it is relayed.
    """

    def __init__(
        self, loop: Loop, group: Group, through: socket.socket | None, *, migrates: bool
    ) -> None:
        self._loop = loop
        self._group = group
        self._through = through
        self._migrates = migrates

    def run(self, ours: Iterable[socket.socket], chosen: Sequence[range]) -> None:
        """Close `ours`; `chosen` is who gets connections meanwhile. Raises OSError."""
        left = list(ours)
        found = self._locate(left, chosen)
        lost = [sock for sock in left if sock not in found.values()]
        while found:
            self._take_out(found)
        for sock in lost:  # nobody knows where: this is the most that can be done
            self._empty(sock)
            sock.close()

    def _take_out(self, found: dict[int, socket.socket]) -> None:
        """Close one of ours: the last of the group if it is ours, else the one at its highest
        place, to which the last then moves."""
        last = self._group.count() - 1
        place = last if last in found else max(found)
        theirs = [n for n in range(last + 1) if n not in found]
        staying = [n for n in theirs if n != last]
        if place != last and staying:
            self._choose(_ranges(staying), next(iter(found.values())))
        sock = found.pop(place)
        self._empty(sock)
        sock.close()
        moved = [place if n == last else n for n in theirs]
        self._choose_after(_ranges(sorted(moved)), found)

    def _choose_after(self, theirs: Sequence[range], left: dict[int, socket.socket]) -> None:
        if left:
            self._choose(theirs, next(iter(left.values())))
        elif self._through is not None:
            reuseport.detach(self._through.fileno())
        elif sum(map(len, theirs)) > 1:
            # The last of ours is out, and the one that has moved to its place gets nothing yet.
            with self._group.join() as guest:  # gets nothing either, and is the last
                self._choose(theirs, guest)

    def _choose(self, ranges: Sequence[range], member: socket.socket) -> None:
        self._attach(ranges, self._through or member)

    def _attach(
        self, ranges: Sequence[range], member: socket.socket, branch: reuseport.Branch | None = None
    ) -> None:
        program = reuseport.choose(ranges, reuseport.Flow.RANDOM, branch, ipv6=self._group.is_ipv6)
        reuseport.attach(member.fileno(), program)

    def _empty(self, sock: socket.socket) -> None:
        if not self._migrates:
            pass_on(self._loop, sock, self._group.connect)

    def _locate(
        self, ours: Sequence[socket.socket], chosen: Sequence[range]
    ) -> dict[int, socket.socket]:
        found: dict[int, socket.socket] = {}
        for place in range(self._group.count()):
            unfound = [sock for sock in ours if sock not in found.values()]
            if not unfound:
                break
            sock = self._who_is_at(place, unfound, chosen)
            if sock is not None:
                found[place] = sock
        return found

    def _who_is_at(
        self, place: int, among: Sequence[socket.socket], chosen: Sequence[range]
    ) -> socket.socket | None:
        with socket.socket(self._group.family, socket.SOCK_STREAM) as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
            self._attach(chosen, self._through or among[0], reuseport.Branch(port, place))
            self._group.connect(probe)
            waiting = select.poll()
            for sock in among:
                # One that hands over who has spoken (TCP_DEFER_ACCEPT) would keep ours waiting.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
                sock.setblocking(False)
                waiting.register(sock, select.POLLIN)
            by_fd = {sock.fileno(): sock for sock in among}
            while ready := waiting.poll(_ARRIVES_IN_MS):
                for fd, _events in ready:
                    if self._has_come(by_fd[fd], port):
                        return by_fd[fd]
        return None

    def _has_come(self, listener: socket.socket, port: int) -> bool:
        """Whether the one from that source port waits there; others are relayed."""
        has_come = False

        def is_probe(peer: int) -> bool:
            nonlocal has_come
            has_come = has_come or peer == port
            return peer == port

        pass_on(self._loop, listener, self._group.connect, skip=is_probe)
        return has_come


def _ranges(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers as ranges without gaps."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found
