"""Steering by index where sockets cannot be borrowed: by sockets of our own in the group.

One of ours joins behind the old ones, so that all that come later are behind it. Before the old
ones close, as many of ours join behind the new ones: those move into the holes, and the new ones
stay where they are. What reaches one of ours is relayed. What waits in an old one when that closes
is lost, unless the kernel migrates it: so it has to be empty by then.
"""

import socket
from collections.abc import Set

from sengu.model.passage import Technique
from sengu.passage.group import Group, Look
from sengu.passage.kept import Kept
from sengu.passage.relay import pass_on
from sengu.passage.removal import Removal
from sengu.passage.steering import Steered, inode_of
from sengu.posix import reuseport
from sengu.posix.loop import Loop


class ByMembers:
    """`_old` are the others that were there at `hold`; None: at rest, or places are not known."""

    def __init__(
        self, loop: Loop, group: Group, kept: Kept, name: Technique, *, migrates: bool
    ) -> None:
        """Those that are kept already, of a passage before our time, are only to be removed."""
        self.name = name
        self.migrates = migrates
        self._loop = loop
        self._group = group
        self._kept = kept
        self._old: frozenset[int] | None = None
        self._new = 0  # how many there were when the old ones were about to close
        self._ranges: list[range] = []

    def try_out(self, look: Look) -> None:
        if not look.sockets:
            raise ProcessLookupError(None, "nobody listens")
        self._group.bind_beside(look).close()

    def hold(self, look: Look) -> None:
        if self._kept.sockets:  # the last passage is not over: places are not known
            self._old = None
            return
        self._join(look)
        self._old = frozenset(look.sockets)

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        old, there = self._old, look.sockets.keys()
        if old is None:
            return Steered.NEVER
        new = there - old
        if self._new:
            return Steered.DONE if chosen & new else Steered.NOT_YET
        if not old <= there:  # one has closed, and the last has moved, whoever that was
            return Steered.NEVER
        if chosen == old:
            self._attach([range(len(old))])
            return Steered.DONE
        if chosen & old:
            return Steered.NEVER
        if not new or not new <= chosen:
            return Steered.NOT_YET
        first = len(old) + 1
        self._attach([range(first, first + len(new))])
        self._new = len(new)
        for _ in old:
            self._join(look)
        return Steered.DONE

    def tend(self, look: Look) -> None:
        if look.sockets:
            for sock in self._kept.sockets.values():
                pass_on(self._loop, sock, self._group.connect)

    def let_go(self, look: Look) -> bool:
        if look.sockets and not self._kept.are_only_ours():
            return False
        if look.sockets and self._kept.sockets:
            chosen = self._ranges or [range(len(look.sockets) + len(self._kept.sockets))]
            removal = Removal(self._loop, self._group, None, migrates=False)
            removal.run(self._kept.sockets.values(), chosen)
        self._kept.forget()
        self._old = None
        self._new = 0
        self._ranges = []
        return True

    def _join(self, look: Look) -> None:
        sock = self._group.bind_beside(look)
        try:
            self._group.disown([inode_of(sock)])
            sock.listen(socket.SOMAXCONN)
            self._kept.keep(str(len(self._kept.sockets)), sock)
        except OSError:
            sock.close()
            raise

    def _attach(self, ranges: list[range]) -> None:
        if ranges != self._ranges:
            program = reuseport.choose(ranges, reuseport.Flow.RANDOM, ipv6=self._group.is_ipv6)
            member = next(iter(self._kept.sockets.values()))
            reuseport.attach(member.fileno(), program)
            self._ranges = ranges
