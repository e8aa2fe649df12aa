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

_ROOM = 4096  # sockets that may come between two times of rest


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
            for inode in chosen - self._numbers.keys():
                self._put(array, inode, found[inode])
            numbers = sorted(self._numbers[inode] for inode in chosen)
            if numbers[-1] - numbers[0] >= len(numbers):  # others are in between
                for inode in chosen:
                    array.remove(self._numbers.pop(inode))
                    self._put(array, inode, found[inode])
                numbers = sorted(self._numbers[inode] for inode in chosen)
            program = bpf.load_choice(array, range(numbers[0], numbers[-1] + 1))
            try:
                bpf.attach(next(iter(found.values())).fileno(), program)
            finally:
                os.close(program)

    def _put(self, array: bpf.SocketArray, inode: int, sock: socket.socket) -> None:
        number = max(self._numbers.values(), default=-1) + 1
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
