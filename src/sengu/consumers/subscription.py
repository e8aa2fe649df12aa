"""A consumer's subscription: a channel, what came through it, and how that is settled.

Lives in the thread of the connection. A connection that is lost takes all with it: what was not
acknowledged comes again from the broker, and how its jobs end does not matter any more.
Imported by `process`.
"""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import pika

from sengu.consumers.job import Job
from sengu.consumers.judge import (
    MOVED_AT,
    Delivered,
    Ending,
    Move,
    Origin,
    Outcome,
    admit,
    conclude,
)
from sengu.consumers.message import Message
from sengu.consumers.outbox import Copy
from sengu.consumers.properties import Properties, message_of
from sengu.consumers.runners import Runner
from sengu.consumers.spec import ConsumerSpec
from sengu.consumers.tags import Tags
from sengu.consumers.topology import suspects_queue
from sengu.posix import clock


class Assigned(NamedTuple):
    """A consumer of this process: what it is, what handles, and where it runs."""

    spec: ConsumerSpec
    handle: Callable[[Message], Any]
    runner: Runner
    suspects: Runner
    # How many jobs can run.
    at_once: int


class Site(Protocol):
    """What a subscription needs of its process."""

    log: logging.Logger

    def publish(self, copy: Copy) -> None: ...
    def last_words(self, message: Message) -> Ending | None: ...
    def start(self, job: Job, runner: Runner) -> None: ...
    def ended(self, job: Job) -> None: ...
    def changed(self) -> None: ...
    def cancelled(self, subscription: "Subscription") -> None: ...
    def closed(self, subscription: "Subscription", error: BaseException) -> None: ...


class Subscription:
    """From `open` to `close`, or until the connection is lost."""

    def __init__(self, assigned: Assigned, site: Site) -> None:
        self.spec = assigned.spec
        self._assigned = assigned
        self._site = site
        self._channel: Any = None
        self._tags = Tags()
        self._jobs: dict[Job, int] = {}
        self._elsewhere: set[Job] = set()
        self._held: deque[Job] = deque()
        self._steps: Iterator[None] = iter(())
        self._is_opening = self._is_subscribing = False
        self.is_asking = False
        self._is_to_sync = self._is_syncing = False
        self._consumer_tag: str | None = None
        self._is_ending = False

    @property
    def is_subscribed(self) -> bool:
        return self._consumer_tag is not None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in hand, and nothing will come."""
        return not self.is_asking and self._is_idle and not self._is_to_sync

    @property
    def is_moving_suspects(self) -> bool:
        """Whether a copy of one is on its way, and the message not acknowledged."""
        return bool(self._elsewhere)

    @property
    def _is_idle(self) -> bool:
        return not self.is_subscribed and not self._jobs and not len(self._tags)

    def open(self, connection: Any) -> None:
        if not self._is_opening and self._channel is None:
            self._is_opening = True
            connection.channel(on_open_callback=self._begin)

    def forget(self) -> None:
        """The connection is lost. Jobs that have begun go on, and nobody asks how they end."""
        for job in self._jobs:
            if self._runner_of(job).withdraw(job):
                self._site.ended(job)
            job.is_over = True
        self._jobs.clear()
        self._elsewhere.clear()
        self._held.clear()
        self._tags = Tags()
        self._consumer_tag = None
        self._steps = iter(())  # an answer that was read already is to none of them
        self._is_opening = self._is_subscribing = self.is_asking = False
        self._is_to_sync = self._is_syncing = False
        self._channel = None

    def cancel(self) -> None:
        """Let nothing more come, give back what has not begun, and have the rest finish."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._channel is None:
            return
        self._cancel()
        for job in tuple(self._jobs):
            self._give_back(job)

    def flush(self) -> None:
        """Acknowledge what was settled."""
        if self._channel is not None and self._channel.is_open:
            for tag, multiple in self._tags.take():
                self._channel.basic_ack(tag, multiple)
                self._is_to_sync = True
            if self._is_ending and self._is_idle and self._is_to_sync and not self.is_asking:
                self._sync()

    # The channel

    def _begin(self, channel: Any) -> None:
        if not self._is_opening:  # its connection is lost, and this was still to be read
            return
        self._is_opening = False
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled_by_broker)
        channel.add_callback(self._answered, [pika.spec.Basic.GetEmpty], one_shot=False)
        self.resume()

    def resume(self) -> None:
        """Subscribe, if it is not."""
        if self._channel is None or self._is_ending:
            return
        if not self._is_subscribing and not self.is_subscribed:
            self._is_subscribing = True
            self._steps = self._subscribe()
            self._advance()

    def ask_for_suspect(self, take: Callable[[Job, Runner], None]) -> None:
        """Have `take` called with one of its suspects, if there is any that is to run."""
        if self.is_subscribed and not self.is_asking and not self._is_ending:
            self.is_asking = True
            self._channel.basic_get(
                suspects_queue(self.spec.queue), functools.partial(self._take_suspect, take)
            )

    def _subscribe(self) -> Iterator[None]:
        """Each step waits for the broker's answer."""
        channel = self._channel
        channel.basic_qos(prefetch_count=self.spec.prefetch, callback=self._advance)
        yield
        tag = channel.basic_consume(self.spec.queue, self._take, callback=self._advance)
        yield
        self._consumer_tag = tag
        self._is_subscribing = False
        if self._is_ending:
            self._cancel()
        else:
            self._site.changed()

    def _advance(self, *_: object) -> None:
        next(self._steps, None)

    def _cancel(self) -> None:
        if self._consumer_tag is not None:  # else when it is subscribed
            self._channel.basic_cancel(self._consumer_tag, callback=self._cancelled)

    def _closed(self, channel: Any, why: BaseException) -> None:
        if channel is not self._channel:
            return
        if self._is_ending:  # nobody answers what it was asked, and nothing can be settled
            self.forget()
        else:
            self._site.closed(self, why)

    def _cancelled_by_broker(self, _frame: Any) -> None:
        """The queue is gone. What is in hand goes on, also that of others."""
        self._consumer_tag = None
        if not self._is_ending:
            self._site.cancelled(self)

    def _cancelled(self, _frame: Any) -> None:
        self._consumer_tag = None

    def _sync(self) -> None:
        """Wait until the broker has done what was acknowledged: until it answers what it does after
        that. A channel that closes forgets acknowledgements to a quorum queue if more are on their
        way than its quorum_commands_soft_limit, which is 32 (rabbit_fifo_client, settle/3).
        """
        self.is_asking = self._is_syncing = True
        self._channel.basic_get(self.spec.queue, self._synced)

    def _synced(self, channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        """There is nothing that one could ask a queue for without being given a message."""
        channel.basic_nack(method.delivery_tag, requeue=True)
        self._answered()

    def _answered(self, *_: object) -> None:
        self.is_asking = False
        if self._is_syncing:
            self._is_to_sync = self._is_syncing = False

    # Messages

    def _take(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        job = self._admit(channel, method, properties, body, Origin.MAIN)
        if job is None:
            return
        if not self.spec.ack_late:
            self._held.append(job)
        if self._is_ending:
            self._give_back(job)
        if not self.spec.ack_late:
            self._begin_held()
        elif job in self._jobs:
            self._start(job)

    def _take_suspect(
        self,
        take: Callable[[Job, Runner], None],
        channel: Any,
        method: Any,
        properties: Any,
        body: bytes,
    ) -> None:
        self.is_asking = False
        job = self._admit(channel, method, properties, body, Origin.SUSPECTS)
        if job is not None:
            take(job, self._assigned.suspects)

    def _admit(
        self, channel: Any, method: Any, properties: Any, body: bytes, origin: Origin
    ) -> Job | None:
        """The job that it is; None if it is none, or goes elsewhere."""
        if channel is not self._channel:  # it is lost, and this was still to be read
            return None
        delivered = Delivered(
            properties.headers or {},
            method.exchange,
            method.routing_key,
            method.redelivered,
            origin,
            properties.user_id,
        )
        self._tags.add(method.delivery_tag)
        spec = self.spec
        message = message_of(spec, delivered, properties, body)
        job = Job(spec, self._assigned.handle, message, delivered, self._settle)
        self._jobs[job] = method.delivery_tag
        move = admit(spec, delivered)
        if move is None:
            return job
        if move.outcome is Outcome.KILLED:
            move = admit(spec, delivered, self._site.last_words(message)) or move
            self._site.log.error("%s: a message has killed its worker; %s", spec.queue, _fate(move))
        self._elsewhere.add(job)
        self._move(job, move)
        return None

    def _start(self, job: Job) -> None:
        self._site.start(job, self._runner_of(job))

    def _begin_held(self) -> None:
        """What is acknowledged before it is done is so when it can begin, and not before: what
        waits can be given back, and the broker sends no more than `prefetch` of it.
        """
        while self._held and len(self._jobs) - len(self._held) < self._assigned.at_once:
            job = self._held.popleft()
            self._tags.settle(self._jobs[job])
            self._start(job)

    def _runner_of(self, job: Job) -> Runner:
        is_suspect = job.delivered.origin is Origin.SUSPECTS
        return self._assigned.suspects if is_suspect else self._assigned.runner

    def _give_back(self, job: Job) -> None:
        """If it has not begun, and can be had again. A suspect cannot: to come back is a charge."""
        if self.spec.ack_late:
            if job.delivered.origin is Origin.SUSPECTS or job.is_over:
                return
            can_be = self._runner_of(job).withdraw(job)
        else:
            can_be = job in self._held
        if can_be:
            if job in self._held:
                self._held.remove(job)
            tag = self._jobs.pop(job)
            self._site.ended(job)
            self._tags.give_back(tag)
            self._channel.basic_nack(tag, requeue=True)

    def _settle(self, job: Job, ending: Ending) -> None:
        if job.is_over:
            return
        job.is_over = True
        if not self.spec.ack_late:
            del self._jobs[job]
            self._begin_held()
            if ending.outcome is not Outcome.DONE:
                self._say(ending, "it is not tried again, as it was acknowledged before")
            return
        move = conclude(self.spec, job.delivered, ending)
        if move is None:
            self._tags.settle(self._jobs.pop(job))
            return
        self._say(ending, _fate(move))
        self._move(job, move)

    def _move(self, job: Job, move: Move) -> None:
        tag, tags = self._jobs[job], self._tags

        def moved() -> None:
            if self._jobs.pop(job, None) is not None:
                self._elsewhere.discard(job)
                tags.settle(tag)

        properties = job.message.properties
        assert isinstance(properties, Properties)
        copy = properties.copy({**move.headers, MOVED_AT: round(clock.wall())})
        self._site.publish(Copy(move.queue, copy, job.message.body, moved, clock.monotonic()))
        job.is_over = True

    def _say(self, ending: Ending, fate: str) -> None:
        why = f"{ending.outcome}: {ending.error}" if ending.error else str(ending.outcome)
        level = logging.INFO if ending.outcome is Outcome.REQUEUED else logging.WARNING
        stack = f"\n{ending.stack.rstrip()}" if ending.outcome is Outcome.FAILED else ""
        self._site.log.log(level, "%s: a message %s; %s%s", self.spec.queue, why, fate, stack)


def _fate(move: Move) -> str:
    if move.delay_seconds is not None:
        return f"it is tried again in {move.delay_seconds:g} s"
    return f"it is in {move.queue}"
