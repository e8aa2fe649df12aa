"""A consumer's subscription: a channel, what came through it, and how that is settled.

Lives in the thread of the connection. A connection that is lost takes all with it: what was not
acknowledged comes again from the broker, and how its jobs end does not matter any more.
Imported by `process`.
"""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from sengu.consumers.job import Job
from sengu.consumers.judge import (
    Delivered,
    Ending,
    Move,
    Origin,
    Outcome,
    admit,
    conclude,
    original,
)
from sengu.consumers.message import Message
from sengu.consumers.outbox import Copy
from sengu.consumers.runners import Runner
from sengu.consumers.spec import ConsumerSpec
from sengu.consumers.tags import Tags
from sengu.consumers.topology import suspects_queue
from sengu.posix import clock

# What a copy must not have: it would expire before its time, or be refused (RabbitMQ, Validated
# User-ID).
_LEFT_OUT = {"expiration": None, "user_id": None}


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
    def lost(self, error: BaseException) -> None: ...


class Subscription:
    """From `open` to `close`, or until the connection is lost."""

    def __init__(self, assigned: Assigned, site: Site) -> None:
        self.spec = assigned.spec
        self._assigned = assigned
        self._site = site
        self._channel: Any = None
        self._tags = Tags()
        self._jobs: dict[Job, int] = {}
        self._held: deque[Job] = deque()
        self._steps: Iterator[None] = iter(())
        self._is_subscribing = False
        self._consumer_tags: dict[str, Origin] = {}
        self._is_ending = False

    @property
    def is_subscribed(self) -> bool:
        return len(self._consumer_tags) == len(self._sources)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in hand, and nothing will come."""
        return not self._consumer_tags and not self._jobs and not len(self._tags)

    @property
    def _sources(self) -> list[tuple[str, Origin, int]]:
        """Queues, and how many of their messages to have in hand."""
        spec = self.spec
        suspects = suspects_queue(spec.queue), Origin.SUSPECTS, 1
        return [(spec.queue, Origin.MAIN, spec.prefetch), *([suspects] if spec.ack_late else [])]

    def open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._begin)

    def forget(self) -> None:
        """The connection is lost. Jobs that have begun go on, and nobody asks how they end."""
        for job in self._jobs:
            if self._runner_of(job).withdraw(job):
                self._site.ended(job)
            job.is_over = True
        self._jobs.clear()
        self._held.clear()
        self._tags = Tags()
        self._consumer_tags.clear()
        self._is_subscribing = False
        self._channel = None

    def cancel(self) -> None:
        """Let nothing more come, give back what has not begun, and have the rest finish."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._channel is None:
            return
        self._cancel_all()
        for job in tuple(self._jobs):
            self._give_back(job)

    def flush(self) -> None:
        """Acknowledge what was settled."""
        if self._channel is not None and self._channel.is_open:
            for tag, multiple in self._tags.take():
                self._channel.basic_ack(tag, multiple)

    # The channel

    def _begin(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled_by_broker)
        self.resume()

    def resume(self) -> None:
        """Subscribe to those of its queues to which it is not."""
        if self._channel is not None and not self._is_subscribing:
            self._is_subscribing = True
            self._steps = self._subscribe()
            self._advance()

    def _subscribe(self) -> Iterator[None]:
        """Each step waits for the broker's answer."""
        channel = self._channel
        for queue, origin, prefetch in self._sources:
            if origin in self._consumer_tags.values() or self._is_ending:
                continue
            channel.basic_qos(prefetch_count=prefetch, callback=self._advance)
            yield
            deliver = functools.partial(self._take, origin)
            tag = channel.basic_consume(queue, deliver, callback=self._advance)
            yield
            self._consumer_tags[tag] = origin
        self._is_subscribing = False
        if self._is_ending:
            self._cancel_all()
        elif self.is_subscribed:
            self._site.changed()
        else:  # one was cancelled meanwhile
            self._site.cancelled(self)

    def _advance(self, *_: object) -> None:
        next(self._steps, None)

    def _cancel_all(self) -> None:
        if not self._is_subscribing:  # else when that is done
            for tag in tuple(self._consumer_tags):
                self._channel.basic_cancel(tag, callback=self._cancelled)

    def _closed(self, channel: Any, why: BaseException) -> None:
        if channel is self._channel and not self._is_ending:
            self._site.lost(why)

    def _cancelled_by_broker(self, frame: Any) -> None:
        """A queue is gone. What is in hand goes on, also that of others."""
        self._consumer_tags.pop(frame.method.consumer_tag, None)
        if not self._is_ending:
            self._site.cancelled(self)

    def _cancelled(self, frame: Any) -> None:
        self._consumer_tags.pop(frame.method.consumer_tag, None)

    # Messages

    def _take(
        self, origin: Origin, channel: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        if channel is not self._channel:  # it is lost, and this was still to be read
            return
        headers = properties.headers or {}
        delivered = Delivered(
            headers,
            method.exchange,
            method.routing_key,
            method.redelivered,
            origin,
            properties.user_id,
        )
        tag = method.delivery_tag
        self._tags.add(tag)
        spec = self.spec
        message = _message(spec, delivered, properties, body)
        job = Job(spec, self._assigned.handle, message, delivered, self._settle)
        self._jobs[job] = tag
        move = admit(spec, delivered)
        if move is not None:
            if move.outcome is Outcome.KILLED:
                words = self._site.last_words(message)
                move = admit(spec, delivered, words) or move
            self._move(job, move)
            return
        if not spec.ack_late:
            self._held.append(job)
        if self._is_ending:
            self._give_back(job)
        if not spec.ack_late:
            self._begin_held()
        elif job in self._jobs:
            self._start(job)

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
                tags.settle(tag)

        properties = job.message.properties
        assert isinstance(properties, Properties)
        copy = properties.copy(move.headers)
        self._site.publish(Copy(move.queue, copy, job.message.body, moved, clock.monotonic()))
        job.is_over = True

    def _say(self, ending: Ending, fate: str) -> None:
        why = f"{ending.outcome}: {ending.error}" if ending.error else str(ending.outcome)
        level = logging.INFO if ending.outcome is Outcome.REQUEUED else logging.WARNING
        self._site.log.log(level, "%s: a message %s; %s", self.spec.queue, why, fate)


class Properties(Mapping[str, Any]):
    """AMQP's properties of a message, those that are set, by name."""

    __slots__ = ("_properties",)

    def __init__(self, properties: Any) -> None:
        self._properties = properties

    def __getitem__(self, name: str) -> Any:
        value = self._properties.__dict__.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._properties.__dict__.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self, headers: Mapping[str, Any]) -> Any:
        """pika's own, for a copy of the message that outlives a restart of the broker."""
        left = {name: value for name, value in self.items() if name not in _LEFT_OUT}
        return type(self._properties)(**{**left, "headers": dict(headers), "delivery_mode": 2})


def _message(spec: ConsumerSpec, delivered: Delivered, properties: Any, body: bytes) -> Message:
    exchange, routing_key = original(delivered)
    return Message(
        body=body,
        queue=spec.queue,
        headers=delivered.headers,
        content_type=properties.content_type or spec.content_type,
        exchange=exchange,
        routing_key=routing_key,
        redelivered=delivered.redelivered,
        attempt=delivered.failures + 1,
        properties=Properties(properties),
    )


def _fate(move: Move) -> str:
    if move.delay_seconds is not None:
        return f"it is tried again in {move.delay_seconds:g} s"
    return f"it is in {move.queue}"
