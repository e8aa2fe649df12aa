"""The scoreboard's memory: made here, written by workers, read for status and deadlines."""

import fcntl
import mmap
import os
from collections.abc import Iterable

from sengu.posix.store import Store
from sengu.wire.scoreboard import ENDING, LINE_BYTES, LINES, SIZE_BYTES, Line, read_line


class Scoreboard:
    """Lines of all workers, in blocks of `lanes`. `fd` is the memory file that fork servers map."""

    def __init__(self, lanes: int, store: Store) -> None:
        """Raises OSError."""
        held = store.take("scoreboard")
        if held is None:
            self.fd = os.memfd_create("sengu-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.fd, SIZE_BYTES)
            # A worker that made it shorter would end us (SIGBUS), and each server after us.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            store.hold("scoreboard", self.fd)
        else:
            self.fd = held.fd
        self._memory = memoryview(mmap.mmap(self.fd, SIZE_BYTES))
        self._lanes = lanes
        self._free: list[int] = []
        self._next = 0

    def claim(self, taken: Iterable[int]) -> None:
        """Workers that were there before us have these first lines."""
        lines = set(taken)
        self._next = max(lines, default=-self._lanes) + self._lanes
        self._free = [line for line in range(0, self._next, self._lanes) if line not in lines]

    def take(self) -> int:
        """The first line of a block for a new worker. Raises OSError when all are taken."""
        if not self._free:
            if self._next + self._lanes > LINES:
                raise OSError(None, f"all {LINES} lines of the scoreboard are taken")
            self._free.append(self._next)
            self._next += self._lanes
        first = self._free.pop()
        # What was in the hands of who had it before is not in those of the next.
        begin, end = first * LINE_BYTES, (first + self._lanes) * LINE_BYTES
        self._memory[begin:end] = bytes(end - begin)
        return first

    def show_ending(self, is_ending: bool) -> None:
        """Tell all workers whether the service is to end."""
        self._memory[ENDING] = is_ending

    def give_back(self, first: int) -> None:
        """The worker is gone."""
        self._free.append(first)

    def read(self, first: int) -> list[Line]:
        return [read_line(self._memory, first + lane) for lane in range(self._lanes)]
