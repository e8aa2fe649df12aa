"""The jobs that a process has in its hands: shown on its scoreboard, and ended when their time is
up.

Imported by `process`.
"""

import zlib
from collections.abc import Callable, Sequence

from sengu.consumers.job import Job
from sengu.consumers.judge import Ending, Outcome
from sengu.consumers.message import Message
from sengu.consumers.runners import Runner, stack_of
from sengu.posix.loop import Loop
from sengu.worker.board import Lane

_LOOK_SECONDS = 0.5
# A coroutine that was cancelled and goes on: its event loop is stuck.
_CANCEL_SECONDS = 5.0


def label(message: Message) -> str:
    """What a job is called on the scoreboard: its queue, and the message's id or checksum."""
    return f"{message.queue} {message.id or format(zlib.crc32(message.body), '08x')}"


class InHand:
    """All jobs of a process that have been taken and are not over. `settle` ends one; `stuck` is
    told what does not come back.
    """

    def __init__(
        self,
        loop: Loop,
        lanes: Sequence[Lane],
        stuck: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._free = list(reversed(lanes))
        self._lanes: dict[Job, Lane] = {}
        self._stuck = stuck
        self._runners: dict[Job, Runner] = {}
        self._expired_at: dict[Job, float] = {}
        self._look()

    def __len__(self) -> int:
        return len(self._runners)

    def begin(self, job: Job, runner: Runner) -> None:
        self._runners[job] = runner
        if self._free:
            lane = self._lanes[job] = self._free.pop()
            lane.begin(self._loop.now(), label(job.message).encode(errors="replace"))

    def end(self, job: Job) -> None:
        if self._runners.pop(job, None) is None:
            return
        self._expired_at.pop(job, None)
        lane = self._lanes.pop(job, None)
        if lane is not None:
            lane.end()
            self._free.append(lane)

    def beat(self) -> None:
        """The process runs: none of its jobs is stuck in a way that stops it."""
        now = self._loop.now()
        for lane in self._lanes.values():
            lane.progress(now)

    def _look(self) -> None:
        now = self._loop.now()
        for job, runner in list(self._runners.items()):
            limit = job.spec.timeout_seconds
            if limit is not None and job.started_at and job.started_at + limit <= now:
                self._expire(job, runner, now)
        self._loop.call_at(now + _LOOK_SECONDS, self._look)

    def _expire(self, job: Job, runner: Runner, now: float) -> None:
        expired_at = self._expired_at.setdefault(job, now)
        if expired_at == now:
            ending = runner.expire(job)
        elif expired_at + _CANCEL_SECONDS <= now:
            error = f"not done after {job.spec.timeout_seconds:g} s, and it goes on when cancelled"
            ending = Ending(Outcome.TIMED_OUT, error, stack_of(job.thread_id))
        else:
            return
        if ending is not None:
            self._stuck(f"{label(job.message)}: {ending.error}, at:\n{ending.stack}")
            job.settle(job, ending)
