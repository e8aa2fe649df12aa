"""Steering by index, without any privilege: a classic BPF program picks a number, and that is a
place in the order in which the sockets of a group began to listen.

When a socket closes, the last one moves into its place: so nobody may close while places matter.
`ByCopies` borrows each old socket, which so stays in the group when its program has closed it.
`by_member` is for where sockets cannot be borrowed.
"""

import os
import socket
from collections.abc import Iterator, Set

from sengu.model.passage import Technique
from sengu.passage.group import Look
from sengu.passage.kept import Kept
from sengu.passage.places import Ground, choose
from sengu.passage.relay import pass_on
from sengu.passage.removal import Removal
from sengu.passage.steering import Steered, borrow_one, borrowed
from sengu.posix import clock, reuseport
from sengu.posix.procfs import holders

_LOOKS_FOR_HOLDERS_EVERY_SECONDS = 0.25

# Places, the sockets at them, and whether these stay there whoever else goes.
Block = tuple[range, Set[int], bool]


class ByCopies:
    """Blocks of borrowed sockets, each of those that were there at a `hold`, then the rest.

    Places of a block stay as they are, though who is where in it is not known; so do those of the
    rest as a whole.
    """

    def __init__(self, ground: Ground, kept: Kept, name: Technique) -> None:
        self.name = name
        self.migrates = name is Technique.SYSCTL
        self._ground = ground
        self._kept = kept  # by BLOCK/INODE
        self._ranges: list[range] = []
        self._dead: frozenset[int] = frozenset()
        self._looked_at = 0.0

    def try_out(self, look: Look) -> None:
        with borrowed(look.sockets.keys()):
            return

    def hold(self, look: Look) -> None:
        self._kept.hold_again()
        block = len(self._blocks())
        with borrowed(look.sockets.keys() - self._copies().keys()) as found:
            for inode in list(found):
                self._kept.keep(f"{block:04}/{inode}", found[inode])
                del found[inode]

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        if not self._kept.sockets:
            return Steered.NOT_YET
        self._look_for_holders()
        blocks = list(self._places(look))
        for _, inodes, is_fixed in blocks:
            if inodes & chosen and not inodes <= chosen:
                self._avoid_dead(blocks)
                return Steered.NEVER if is_fixed else Steered.NOT_YET
        ranges = [places for places, inodes, _ in blocks if inodes <= chosen]
        if not ranges:
            self._avoid_dead(blocks)
            return Steered.NOT_YET
        self._choose(ranges)
        return Steered.DONE

    def tend(self, look: Look) -> None:
        """Relay what comes to a socket whose program has closed it, if anybody else is left."""
        if look.sockets.keys() - self._dead:
            copies = self._copies()
            for inode in self._dead:
                pass_on(self._ground.loop, copies[inode], self._ground.group.connect)

    def let_go(self, look: Look) -> bool:
        self._find_dead()
        living = look.sockets.keys() - self._dead
        if living and not self._kept.are_only_ours():
            return False
        try:
            if living:
                with borrow_one(living) as through:
                    self._remove_dead(look, through)
                    reuseport.detach(through.fileno())
        finally:
            self._kept.forget()
            self._ranges = []
            self._dead = frozenset()
        return True

    def _avoid_dead(self, blocks: list[Block]) -> None:
        """When all who get connections have died, whoever lives gets them, ready or not: what is
        relayed from a copy would come to one again, and again."""
        living = [places for places, inodes, _ in blocks if not inodes <= self._dead]
        if not {one.start for one in living} & {one.start for one in self._ranges}:
            self._choose(living)

    def _choose(self, ranges: list[range]) -> None:
        if ranges and ranges != self._ranges:
            choose(self._ground, next(iter(self._kept.sockets.values())), ranges)
            self._ranges = ranges

    def _remove_dead(self, look: Look, through: socket.socket) -> None:
        copies = self._copies()
        dead = [copies[inode] for inode in self._dead]
        if dead:
            chosen = self._ranges or [range(len(look.sockets))]
            Removal(self._ground, through, migrates=self.migrates).run(dead, chosen)

    def _copies(self) -> dict[int, socket.socket]:
        return {int(name[5:]): sock for name, sock in self._kept.sockets.items()}

    def _blocks(self) -> list[frozenset[int]]:
        blocks: dict[str, set[int]] = {}
        for name in sorted(self._kept.sockets):
            block, _, inode = name.partition("/")
            blocks.setdefault(block, set()).add(int(inode))
        return [frozenset(block) for block in blocks.values()]

    def _places(self, look: Look) -> Iterator[Block]:
        start = 0
        for block in self._blocks():
            yield range(start, start + len(block)), block, True
            start += len(block)
        rest = look.sockets.keys() - self._copies().keys()
        if rest:
            yield range(start, start + len(rest)), rest, False

    def _look_for_holders(self) -> None:
        """Now and then: it is looked for in all processes."""
        now = clock.monotonic()
        if now - self._looked_at >= _LOOKS_FOR_HOLDERS_EVERY_SECONDS:
            self._looked_at = now
            self._find_dead()

    def _find_dead(self) -> None:
        copies = self._copies()
        others = holders(copies.keys(), but_not={os.getpid(), os.getppid()})
        self._dead = frozenset(copies.keys() - others.keys())
