"""Hears from workers: the program `announce` writes a line into a FIFO as its first act."""

import os
import select
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench.session import BenchError


class Announcement(NamedTuple):
    """A worker runs. `at` is by CLOCK_MONOTONIC, in seconds, taken by the worker itself."""

    pid: int
    generation: int
    at: float


class Announcements:
    """The reading end. Use it as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "announce.fifo")
        os.mkfifo(self.path)
        # Open for writing too: without writers a FIFO would be at its end.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def wait(self, timeout_seconds: float = 60.0) -> Announcement:
        """The next one. Raises BenchError when none comes in time."""
        return self.wait_many(1, timeout_seconds)[0]

    def wait_many(self, count: int, timeout_seconds: float = 60.0) -> list[Announcement]:
        deadline = time.monotonic() + timeout_seconds
        found: list[Announcement] = []
        while len(found) < count:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                pid, generation, nanoseconds = map(int, line.split())
                found.append(Announcement(pid, generation, nanoseconds / 1e9))
                continue
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BenchError(f"{len(found)} of {count} workers ran after {timeout_seconds} s")
            self._buffer += os.read(self._fd, 65536)
        return found
