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
        self.done[number] += word == "done"

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
    twice = {number for number, times in record.done.items() if times > 1}
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in record.jobs:
        if job.number in twice:
            jobs[job.number].append(job)
    away = [one for one in breaks if not one.pid]
    in_hand_of_publisher = {
        number
        for batch in batches
        for one in away
        if batch.began <= one.ended and batch.ended >= one.began
        for number in twice.intersection(range(batch.first, batch.end))
    }
    for number in sorted(twice):
        explained = sum(one.hit(job) for one in breaks for job in jobs[number])
        explained += number in in_hand_of_publisher
        if record.done[number] - 1 > explained:
            yield (
                f"{number} was handled {record.done[number]} times, of which {explained} are "
                f"explained: {jobs[number]}"
            )
