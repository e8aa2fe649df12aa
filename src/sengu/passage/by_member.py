"""Steering by index where sockets cannot be borrowed: by sockets of our own in the group.

One of ours joins behind the old ones, so that all that come later are behind it. Before the old
ones close, as many of ours join behind the new ones: those move into the holes, and the new ones
stay where they are. What reaches one of ours is relayed. What waits in an old one when that closes
is lost, unless the kernel migrates it: so it has to be empty by then.
"""

import socket
from collections.abc import Set

import msgspec

from sengu.model.passage import Technique
from sengu.passage.group import Look
from sengu.passage.kept import Kept
from sengu.passage.places import Ground, choose, find_places, ranges_of
from sengu.passage.relay import pass_on
from sengu.passage.removal import Removal
from sengu.passage.steering import Steered, inode_of
from sengu.posix import reuseport


class _Places(msgspec.Struct, frozen=True):
    """The sockets that get connections, and the places at which they are, in whatever order."""

    chosen: frozenset[int]
    places: list[int]


class ByMembers:
    """`_chosen` are those that get connections, at the places `_ranges`: only they are sure to stay
    there. Both are kept for whoever comes after us. Empty when places are not known."""

    def __init__(self, ground: Ground, kept: Kept, name: Technique) -> None:
        self.name = name
        self.migrates = name is Technique.SYSCTL
        self._ground = ground
        self._kept = kept
        self._chosen: frozenset[int] = frozenset()
        self._ranges: list[range] = []
        self._likely: list[int] = []  # places of ours
        if kept.note:
            before = msgspec.json.decode(kept.note, type=_Places)
            self._chosen = before.chosen
            self._ranges = ranges_of(before.places)

    def try_out(self, look: Look) -> None:
        if not look.sockets:
            raise ProcessLookupError(None, "nobody listens")
        self._ground.group.bind_beside(look).close()

    def hold(self, look: Look) -> None:
        self._kept.hold_again()
        if self._kept.sockets:
            # Our predecessor may not have come so far.
            if self._ranges and self._chosen <= look.sockets.keys():
                self._attach(self._ranges)
        elif look.sockets:
            self._join(look)
            self._chosen = frozenset(look.sockets)
            self._likely = [len(look.sockets)]
            self._attach([range(len(look.sockets))])
            self._write()

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        there = look.sockets.keys()
        if not chosen or (self._chosen and not self._chosen & there):
            self._avoid_ours()
        if not self._chosen or not self._chosen <= there:  # else others have moved
            return Steered.NEVER
        if chosen >= self._chosen:
            return Steered.DONE
        if chosen & self._chosen:  # some of those among which nobody can choose
            return Steered.NEVER
        if not chosen or not there <= self._chosen | chosen:  # who else is there is to go first
            return Steered.NOT_YET
        return self._turn(look, frozenset(chosen))

    def tend(self, look: Look) -> None:
        if look.sockets:
            for sock in self._kept.sockets.values():
                pass_on(self._ground.loop, sock, self._ground.group.connect)

    def let_go(self, look: Look) -> bool:
        if look.sockets and not self._kept.are_only_ours():
            return False
        ours = list(self._kept.sockets.values())
        try:
            if look.sockets and ours:
                chosen = self._ranges or [range(len(look.sockets) + len(ours))]
                Removal(self._ground, None, migrates=False).run(ours, chosen)
        finally:
            self._kept.forget()
            self._chosen = frozenset()
            self._ranges = []
            self._likely = []
        return True

    def _turn(self, look: Look, chosen: frozenset[int]) -> Steered:
        """To those at all places that are neither of the old ones nor ours."""
        ours = list(self._kept.sockets.values())
        found = find_places(self._ground, ours[0], ours, self._ranges, self._likely)
        taken = {place for one in self._ranges for place in one} | found.keys()
        free = [place for place in range(self._ground.group.count()) if place not in taken]
        if len(free) != len(chosen) or len(found) != len(ours):
            return Steered.NEVER
        # They close now, and as many of ours take their places.
        self._likely = [*(place for one in self._ranges for place in one), *found]
        old, self._chosen = self._chosen, chosen
        self._attach(ranges_of(free))
        for _ in old:
            self._join(look)
        self._write()
        return Steered.DONE

    def _write(self) -> None:
        """Last of all: a successor that does not know of the turn yet makes it again."""
        places = [place for one in self._ranges for place in one]
        self._kept.write(msgspec.json.encode(_Places(self._chosen, places)).decode())

    def _avoid_ours(self) -> None:
        """When all who get connections have died, whoever is there gets them, ready or not: what is
        relayed from one of ours, which may be at their place, would come to it again, and again."""
        if self._kept.sockets:
            reuseport.detach(next(iter(self._kept.sockets.values())).fileno())
            self._ranges = []

    def _join(self, look: Look) -> None:
        sock = self._ground.group.bind_beside(look)
        try:
            self._ground.group.disown([inode_of(sock)])
            sock.listen(socket.SOMAXCONN)
            self._kept.keep(str(len(self._kept.sockets)), sock)
        except OSError:
            sock.close()
            raise

    def _attach(self, ranges: list[range]) -> None:
        self._ranges = ranges
        choose(self._ground, next(iter(self._kept.sockets.values())), ranges)
