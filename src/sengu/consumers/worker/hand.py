"""What a process has in hand of a consumer: what came through its channel, until that is settled.

Lives in the thread of the connection. Imported by `subscription`, which has the channel.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sengu.consumers.message import Message
from sengu.consumers.model.judge import (
    MOVED_AT,
    Delivered,
    Ending,
    Move,
    Origin,
    Outcome,
    admit,
    conclude,
)
from sengu.consumers.model.properties import Properties, message_of
from sengu.consumers.model.spec import ConsumerSpec
from sengu.consumers.model.tags import Acknowledgement, Tags
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.outbox import Copy
from sengu.consumers.worker.runners import Runner
from sengu.posix import clock


class Assigned(NamedTuple):
    """A consumer of this process: what it is, what handles, and where it runs."""

    spec: ConsumerSpec
    handle: Callable[[Message], Any]
    runner: Runner
    suspects: Runner
    # How many jobs can run.
    at_once: int


class Holder(Protocol):
    """What is needed of the process."""

    log: logging.Logger

    def publish(self, copy: Copy) -> None: ...
    def last_words(self, message: Message) -> Ending | None: ...
    def start(self, job: Job, runner: Runner) -> None: ...
    def ended(self, job: Job) -> None: ...


class Hand:
    """Jobs by their delivery tags. Of those that are moved a copy is on its way."""

    def __init__(self, assigned: Assigned, site: Holder) -> None:
        self._spec = assigned.spec
        self._assigned = assigned
        self._site = site
        self._tags = Tags()
        self._jobs: dict[Job, int] = {}
        self._moving: dict[Job, float] = {}
        self._held: deque[Job] = deque()

    @property
    def is_empty(self) -> bool:
        return not self._jobs and not len(self._tags)

    @property
    def moves_suspects_since(self) -> float | None:
        """Since when a copy of one is on its way, and the message not acknowledged."""
        return next(iter(self._moving.values()), None)

    def forget(self) -> None:
        """The channel is lost. Jobs that have begun go on, and nobody asks how they end."""
        for job in self._jobs:
            if self._runner_of(job).withdraw(job):
                self._site.ended(job)
            job.is_over = True
        self._jobs.clear()
        self._moving.clear()
        self._held.clear()
        self._tags = Tags()

    def acknowledgements(self) -> list[Acknowledgement]:
        """What is to be sent for what was settled since the last time."""
        return self._tags.take()

    def take(self, method: Any, properties: Any, body: bytes, origin: Origin) -> Job | None:
        """The job that it is; None if it goes elsewhere. It waits for `begin`."""
        delivered = Delivered(
            properties.headers or {},
            method.exchange,
            method.routing_key,
            method.redelivered,
            origin,
            properties.user_id,
        )
        self._tags.add(method.delivery_tag)
        spec = self._spec
        message = message_of(spec, delivered, properties, body)
        job = Job(spec, self._assigned.handle, message, delivered, self._settle)
        self._jobs[job] = method.delivery_tag
        move = admit(spec, delivered)
        if move is None:
            return job
        if move.outcome is Outcome.KILLED:
            move = admit(spec, delivered, self._site.last_words(message)) or move
            self._site.log.error("%s: a message has killed its worker; %s", spec.queue, _fate(move))
        self._moving[job] = clock.monotonic()
        self._move(job, move)
        return None

    def begin(self, job: Job) -> None:
        """Have it run."""
        if self._spec.ack_late:
            self._site.start(job, self._runner_of(job))
        else:
            self._held.append(job)
            self._begin_held()

    def give_back(self) -> list[int]:
        """Tags of all that has not begun, and can be had again. A suspect cannot: to come back is a
        charge."""
        tags = []
        for job in tuple(self._jobs):
            is_suspect = job.delivered.origin is Origin.SUSPECTS
            is_free = self._spec.ack_late or job in self._held
            if is_free and not is_suspect and not job.is_over and self._withdraw(job):
                tags.append(self._jobs.pop(job))
                self._site.ended(job)
                self._tags.give_back(tags[-1])
        self._held.clear()
        return tags

    def _withdraw(self, job: Job) -> bool:
        return job in self._held or self._runner_of(job).withdraw(job)

    def _begin_held(self) -> None:
        """What is acknowledged before it is done is so when it can begin, and not before: what
        waits can be given back, and the broker sends no more than `prefetch` of it.
        """
        while self._held and len(self._jobs) - len(self._held) < self._assigned.at_once:
            job = self._held.popleft()
            self._tags.settle(self._jobs[job])
            self._site.start(job, self._runner_of(job))

    def _runner_of(self, job: Job) -> Runner:
        is_suspect = job.delivered.origin is Origin.SUSPECTS
        return self._assigned.suspects if is_suspect else self._assigned.runner

    def _settle(self, job: Job, ending: Ending) -> None:
        if job.is_over:
            return
        job.is_over = True
        if not self._spec.ack_late:
            del self._jobs[job]
            self._begin_held()
            if ending.outcome is not Outcome.DONE:
                self._say(ending, "it is not tried again, as it was acknowledged before")
            return
        move = conclude(self._spec, job.delivered, ending)
        if move is None:
            self._tags.settle(self._jobs.pop(job))
            return
        self._say(ending, _fate(move))
        self._move(job, move)

    def _move(self, job: Job, move: Move) -> None:
        tag, tags = self._jobs[job], self._tags

        def moved() -> None:
            if self._jobs.pop(job, None) is not None:
                self._moving.pop(job, None)
                tags.settle(tag)

        properties = job.message.properties
        assert isinstance(properties, Properties)
        copy = properties.copy({**move.headers, MOVED_AT: round(clock.wall())})
        self._site.publish(Copy(move.queue, copy, job.message.body, moved))
        job.is_over = True

    def _say(self, ending: Ending, fate: str) -> None:
        why = f"{ending.outcome}: {ending.error}" if ending.error else str(ending.outcome)
        level = logging.INFO if ending.outcome is Outcome.REQUEUED else logging.WARNING
        stack = f"\n{ending.stack.rstrip()}" if ending.outcome is Outcome.FAILED else ""
        self._site.log.log(level, "%s: a message %s; %s%s", self._spec.queue, why, fate, stack)


def _fate(move: Move) -> str:
    if move.delay_seconds is not None:
        return f"it is tried again in {move.delay_seconds:g} s"
    return f"it is in {move.queue}"
