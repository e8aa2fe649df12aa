"""Takes sockets of ours out of a group, with nothing lost.

When a socket closes, the last one of the group moves to its place, so each closing is announced:
new connections are kept from the one that is to move and from the one that is to close, then what
waits there is served, then it is closed, then the choice is widened again. Imported by `by_index`
and `by_member`.
"""

import socket
from collections.abc import Iterable, Sequence

from sengu.passage.places import Ground, choose, find_places, ranges_of
from sengu.passage.relay import pass_on
from sengu.posix import reuseport


class Removal:
    """`through` is a socket of the group that stays, if there is one that we have.

    With `migrates` the kernel moves what waits in a closed one, else it is relayed.
    """

    def __init__(self, ground: Ground, through: socket.socket | None, *, migrates: bool) -> None:
        self._ground = ground
        self._through = through
        self._migrates = migrates

    def run(self, ours: Iterable[socket.socket], chosen: Sequence[range]) -> None:
        """Close `ours`; `chosen` is who gets connections meanwhile. Raises OSError."""
        all_ours = list(ours)
        found = find_places(self._ground, self._through or all_ours[0], all_ours, chosen)
        lost = [sock for sock in all_ours if sock not in found.values()]
        while found:
            self._take_out(found)
        for sock in lost:  # nobody knows where: this is the most that can be done
            self._empty(sock)
            sock.close()
        if self._through is not None:
            reuseport.detach(self._through.fileno())
        else:  # and nobody of the group is ours any more
            with self._ground.group.join() as guest:
                reuseport.detach(guest.fileno())

    def _take_out(self, found: dict[int, socket.socket]) -> None:
        """Close one of ours: the last of the group if it is ours, else the one at its highest
        place, to which the last then moves."""
        last = self._ground.group.count() - 1
        place = last if last in found else max(found)
        theirs = [n for n in range(last + 1) if n not in found]
        staying = [n for n in theirs if n != last]
        if place != last and staying:
            self._choose(staying, found)
        sock = found.pop(place)
        self._empty(sock)
        sock.close()
        moved = [place if n == last else n for n in theirs]
        if found:
            self._choose(moved, found)

    def _choose(self, places: Sequence[int], ours: dict[int, socket.socket]) -> None:
        if not places:  # all of theirs have closed meanwhile
            return
        choose(self._ground, self._through or next(iter(ours.values())), ranges_of(places))

    def _empty(self, sock: socket.socket) -> None:
        if not self._migrates:
            pass_on(self._ground.loop, sock, self._ground.group.connect)
