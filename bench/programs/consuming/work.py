"""The job that all libraries run, and the count of those that are done.

Each process has a file `count-PID`, mapped into memory, where whoever measures can read it.
"""

import itertools
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

JOB_SECONDS = 0.001
URL = f"https://example.org/{'x' * 180}"

_COUNT = struct.Struct("=Q")


def _nothing() -> None:
    pass


def _sleep() -> None:
    time.sleep(JOB_SECONDS)


def _burn() -> None:
    """A millisecond of a processor, which threads of one interpreter cannot have together."""
    end = time.thread_time() + JOB_SECONDS
    while time.thread_time() < end:
        pass


_JOBS: dict[str, Callable[[], None]] = {"empty": _nothing, "sleep": _sleep, "busy": _burn}
_job = _JOBS[os.environ["BENCH_JOB"]]


class _Count:
    """Of the jobs of this process. Made before it has threads."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self._numbers = itertools.count(1)
        path = Path(os.environ["BENCH_COUNTS"]) / f"count-{os.getpid()}"
        path.write_bytes(bytes(_COUNT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _COUNT.size)

    def add(self) -> None:
        _COUNT.pack_into(self._map, 0, next(self._numbers))


_count = _Count()


def work(url: str) -> None:
    assert url == URL
    _job()
    _count.add()
