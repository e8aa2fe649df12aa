"""Takes sockets of ours out of a group, with nothing lost.

Nobody new may come to one that is to close, and a handshake that has begun there has to end first:
it would be cut off. When a socket closes, the last one of the group moves to its place, so each
closing is announced: new connections are kept from the one that is to move, too. Then what waits is
served, and the socket closed. Imported by `by_index` and `by_member`.
"""

import socket
from collections.abc import Iterable, Sequence

from sengu.passage.places import Ground, choose, find_places, ranges_of, wait_for_handshakes
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
        if found and not self._migrates:
            self._announce(found)
            wait_for_handshakes(self._ground)
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
        """Close one of ours."""
        sock = found.pop(self._announce(found))
        self._empty(sock)
        sock.close()

    def _announce(self, found: dict[int, socket.socket]) -> int:
        """Keep new connections from ours, and from the one that is to move; which place closes.

        It is the last of the group if that is ours, else the highest of ours, to which the last
        moves then.
        """
        last = self._ground.group.count() - 1
        theirs = [place for place in range(last + 1) if place not in found]
        staying = [place for place in theirs if place != last]
        if theirs:  # else all of theirs have closed meanwhile
            through = self._through or next(iter(found.values()))
            choose(self._ground, through, ranges_of(staying or theirs))
        return last if last in found else max(found)

    def _empty(self, sock: socket.socket) -> None:
        if not self._migrates:
            pass_on(self._ground.loop, sock, self._ground.group.connect)
