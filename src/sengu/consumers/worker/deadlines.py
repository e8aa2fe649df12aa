"""The jobs that a process has in its hands: shown on its scoreboard, and ended when their time is
up.

Imported by `process`.
"""

import zlib
from collections.abc import Callable, Sequence

from sengu.consumers.message import Message
from sengu.consumers.model.judge import Origin
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.runners import Runner
from sengu.posix.loop import Loop
from sengu.worker.board import Lane

_LOOK_SECONDS = 0.5
# A coroutine that was cancelled and goes on is stuck, or its event loop is.
_CANCEL_SECONDS = 5.0


def label(message: Message) -> str:
    """What a job is called on the scoreboard: its queue, and the message's id or checksum."""
    return f"{message.queue} {message.id or format(zlib.crc32(message.body), '08x')}"


class InHand:
    """All jobs of a process that have been taken and have not ended, also those whose connection
    is lost. `stuck` is told what does not come back.
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

    def __contains__(self, job: Job) -> bool:
        return job in self._runners

    def begin(self, job: Job, runner: Runner) -> None:
        self._runners[job] = runner
        lane = self._lane_for(job)
        if lane is not None:
            self._lanes[job] = lane
            lane.begin(self._loop.now(), label(job.message).encode(errors="replace"))

    def end(self, job: Job) -> None:
        if self._runners.pop(job, None) is None:
            return
        self._expired_at.pop(job, None)
        lane = self._lanes.pop(job, None)
        if lane is not None:
            lane.end()
            self._free.append(lane)

    def _lane_for(self, job: Job) -> Lane | None:
        """A suspect has one in any case: it is to be known how it kills."""
        if self._free:
            return self._free.pop()
        if job.delivered.origin is Origin.SUSPECTS:
            for other in self._lanes:
                if other.delivered.origin is not Origin.SUSPECTS:
                    return self._lanes.pop(other)
        return None

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
        if expired_at < now < expired_at + _CANCEL_SECONDS:
            return
        ending = runner.expire(job, again=now > expired_at)
        if ending is not None:
            self._stuck(f"{label(job.message)}: {ending.error}, at:\n{ending.stack}")
            self.end(job)
            job.report_stuck(ending)
            job.settle(job, ending)
