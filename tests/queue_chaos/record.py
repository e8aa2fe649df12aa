"""What the workers have written down, and how it is explained that a message was handled twice.

A job of a worker that is killed, or whose connection breaks, comes again, also if it has just
ended: its acknowledgement, or that of its copy in a retry queue, did not reach the broker.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# From the end of a job to its acknowledgement in the hands of the broker, on a busy machine.
_LONGEST_WAY_SECONDS = 2.0
# By a process: the prefetch of `counting`, and a suspect.
_MOST_IN_HAND = 21


class Break(NamedTuple):
    """What somebody had in hand comes again. `pid` is 0 for all: their broker was away."""

    pid: int
    began: float
    ended: float

    def hit(self, job: "Job") -> bool:
        """Whether it was in hand: it had begun, and its end did not reach the broker."""
        return (
            self.pid in (0, job.pid)
            and job.begun <= self.ended
            and job.ended + _LONGEST_WAY_SECONDS >= self.began
        )


class Job(NamedTuple):
    """One that has ended."""

    number: int
    pid: int
    begun: float
    ended: float
    is_done: bool


class Batch(NamedTuple):
    """Numbers that were published by one call."""

    first: int
    end: int
    began: float
    ended: float


class Record:
    """The file that they write to, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("x+b")
        self._rest = b""
        self._begun: dict[tuple[int, int, int], float] = {}
        self.jobs: list[Job] = []
        self.done: Counter[int] = Counter()

    def read(self) -> None:
        """What has come since the last time."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            word, *numbers, moment = line.decode().split()
            self._take(word, *map(int, numbers), moment=float(moment))

    def close(self) -> None:
        self._file.close()

    def _take(self, word: str, number: int, pid: int, thread: int, *, moment: float) -> None:
        if word == "begun":
            self._begun[number, pid, thread] = moment
            return
        begun = self._begun.pop((number, pid, thread))
        self.jobs.append(Job(number, pid, begun, moment, word == "done"))
        if word == "done":
            self.done[number] += 1

    @property
    def cut_off(self) -> int:
        """How many have begun and not ended."""
        return len(self._begun)


def missing(record: Record, count: int) -> list[str]:
    lacking = [number for number in range(count) if not record.done[number]]
    return [f"{len(lacking)} were never handled: {lacking[:20]}"] if lacking else []


def unexplained(record: Record, breaks: Iterable[Break], batches: Iterable[Batch]) -> Iterator[str]:
    """Messages that were handled more often than what has happened explains."""
    breaks = list(breaks)
    explained: Counter[tuple[Break, int]] = Counter()
    published_twice = _published_twice(batches, breaks)
    for number, jobs in _handled_twice(record).items():
        hits = [(one, job.pid) for job in jobs for one in breaks if one.hit(job)]
        needed = record.done[number] - 1 - (number in published_twice)
        # Those with the fewest others: any of them may be the one.
        hits.sort(key=explained.__getitem__)
        explained.update(hits[:needed])
        if needed > len(hits):
            yield f"{number} was handled {record.done[number]} times: {jobs}, {hits}"
    for (one, pid), count in explained.items():
        if count > _MOST_IN_HAND:
            yield f"{pid} had {count} in hand that were handled again after {one}"


def _handled_twice(record: Record) -> dict[int, list[Job]]:
    found: dict[int, list[Job]] = defaultdict(list)
    for job in record.jobs:
        if record.done[job.number] > 1:
            found[job.number].append(job)
    return found


def _published_twice(batches: Iterable[Batch], breaks: Iterable[Break]) -> set[int]:
    """What the publisher had in hand while the broker was away: it may be there twice."""
    away = [one for one in breaks if not one.pid]
    return {
        number
        for batch in batches
        if any(batch.began <= one.ended and batch.ended >= one.began for one in away)
        for number in range(batch.first, batch.end)
    }
