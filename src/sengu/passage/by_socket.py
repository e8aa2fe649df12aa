"""Steering by socket: an extended BPF program picks from an array of sockets, and from the same
ones when the kernel moves what a closed one leaves. Needs CAP_BPF, and sockets to be borrowed.
"""

import errno
import os
import socket
from collections.abc import Set

from sengu.model.passage import Technique
from sengu.passage.group import Look
from sengu.passage.steering import Steered, borrow_one, borrowed
from sengu.posix import bpf

_ROOM = 4096  # sockets at a time


class BySocket:
    """At rest too a program is attached, which lets the queue of a closed socket migrate: so a
    program may replace single sockets by itself."""

    name = Technique.BPF
    migrates = True

    def __init__(self) -> None:
        self._array: bpf.SocketArray | None = None
        self._numbers: dict[int, int] = {}  # in the array, by inode
        self._chosen: Set[int] = frozenset()

    def try_out(self, look: Look) -> None:
        self._attach_migration(look)

    def hold(self, look: Look) -> None:
        if self._array is None:
            self._array = bpf.SocketArray(_ROOM)

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        if not chosen or self._array is None:
            return Steered.NOT_YET
        if chosen != self._chosen:
            # A closed socket has left the array by itself.
            self._numbers = {i: n for i, n in self._numbers.items() if i in look.sockets}
            try:
                self._attach_choice(self._array, chosen)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return Steered.NOT_YET  # an array of before is not taken apart yet
            self._chosen = frozenset(chosen)
        return Steered.DONE

    def tend(self, look: Look) -> None:
        """Nothing: it holds no socket."""

    def let_go(self, look: Look) -> bool:
        if self._array is not None:
            self._array.close()
            self._array = None
        self._numbers.clear()
        self._chosen = frozenset()
        self._attach_migration(look)
        return True

    def _attach_choice(self, array: bpf.SocketArray, chosen: Set[int]) -> None:
        with borrowed(chosen) as found:
            numbers = self._run_for(chosen)
            for inode, number in zip(sorted(chosen, key=self._order), numbers, strict=True):
                self._put(array, inode, number, found[inode])
            program = bpf.load_choice(array, numbers)
            try:
                bpf.attach(next(iter(found.values())).fileno(), program)
            finally:
                os.close(program)

    def _order(self, inode: int) -> int:
        """Those that have a number come first, by it."""
        return self._numbers.get(inode, _ROOM)

    def _run_for(self, chosen: Set[int]) -> range:
        """Numbers in a row that nobody else has, from where the first of them is if possible."""
        others = {number for inode, number in self._numbers.items() if inode not in chosen}
        first = min(map(self._order, chosen))
        for start in (first, *range(_ROOM)):
            run = range(start, start + len(chosen))
            if run.stop <= _ROOM and others.isdisjoint(run):
                return run
        raise OSError(errno.ENOSPC, "more sockets than the kernel's array has room for")

    def _put(self, array: bpf.SocketArray, inode: int, number: int, sock: socket.socket) -> None:
        before = self._numbers.get(inode)
        if before == number:
            return
        if before is not None:
            array.remove(before)
            del self._numbers[inode]
        array.put(number, sock.fileno())
        self._numbers[inode] = number

    def _attach_migration(self, look: Look) -> None:
        program = bpf.load_migration()
        try:
            if look.sockets:
                with borrow_one(look.sockets.keys()) as sock:
                    bpf.attach(sock.fileno(), program)
        finally:
            os.close(program)
