"""A consumer's subscription: a channel, what came through it, and how that is settled.

Lives in the thread of the connection. A connection that is lost takes all with it: what was not
acknowledged comes again from the broker, and how its jobs end does not matter any more.
Imported by `process`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from sengu.consumers.broker import BrokerError
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


class Site(Protocol):
    """What a subscription needs of its process."""

    log: logging.Logger

    def publish(self, copy: Copy) -> None: ...
    def last_words(self, message: Message) -> Ending | None: ...
    def begun(self, job: Job, runner: Runner) -> None: ...
    def ended(self, job: Job) -> None: ...
    def changed(self) -> None: ...
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
        self._consumer_tags: dict[str, Origin] = {}
        self._is_ending = False

    @property
    def is_subscribed(self) -> bool:
        return len(self._consumer_tags) == (2 if self.spec.ack_late else 1)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in hand, and nothing will come."""
        return not self._consumer_tags and not self._jobs and not len(self._tags)

    def open(self, connection: Any) -> None:
        self._tags = Tags()
        connection.channel(on_open_callback=self._begin)

    def forget(self) -> None:
        """The connection is lost. Jobs that have begun go on, and nobody hears of how they end."""
        for job in list(self._jobs):
            self._runner_of(job).withdraw(job)
            self._site.ended(job)
            job.is_over = True
        self._jobs.clear()
        self._consumer_tags.clear()
        self._channel = None

    def cancel(self) -> None:
        """Let nothing more come, give back what has not begun, and have the rest finish."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._channel is None:
            return
        for tag in tuple(self._consumer_tags):
            self._channel.basic_cancel(tag, callback=self._cancelled)
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
        self._steps = self._consume()
        self._advance()

    def _consume(self) -> Iterator[None]:
        """Each step waits for the broker's answer."""
        spec, channel = self.spec, self._channel
        channel.basic_qos(prefetch_count=spec.prefetch, callback=self._advance)
        yield
        yield from self._subscribe(spec.queue, Origin.MAIN)
        if spec.ack_late:
            channel.basic_qos(prefetch_count=1, callback=self._advance)
            yield
            yield from self._subscribe(suspects_queue(spec.queue), Origin.SUSPECTS)
        self._site.changed()

    def _subscribe(self, queue: str, origin: Origin) -> Iterator[None]:
        def deliver(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._take(method, properties, body, origin)

        tag = self._channel.basic_consume(queue, deliver, callback=self._advance)
        yield
        self._consumer_tags[tag] = origin

    def _advance(self, *_: object) -> None:
        next(self._steps, None)

    def _closed(self, _channel: Any, why: BaseException) -> None:
        if not self._is_ending:
            self._site.lost(why)

    def _cancelled_by_broker(self, frame: Any) -> None:
        self._consumer_tags.pop(frame.method.consumer_tag, None)
        self._site.lost(BrokerError(f"queue {self.spec.queue!r} was deleted; it is made anew"))

    def _cancelled(self, frame: Any) -> None:
        self._consumer_tags.pop(frame.method.consumer_tag, None)
        self._site.changed()

    # Messages

    def _take(self, method: Any, properties: Any, body: bytes, origin: Origin) -> None:
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
            self._tags.settle(tag)
        if self._is_ending:
            self._give_back(job)
        if job in self._jobs:
            self._site.begun(job, self._runner_of(job))
            self._runner_of(job).start(job)

    def _runner_of(self, job: Job) -> Runner:
        is_suspect = job.delivered.origin is Origin.SUSPECTS
        return self._assigned.suspects if is_suspect else self._assigned.runner

    def _give_back(self, job: Job) -> None:
        """If it has not begun, and can be had again. A suspect cannot: to come back is a charge."""
        if not self.spec.ack_late or job.delivered.origin is Origin.SUSPECTS or job.is_over:
            return
        if self._runner_of(job).withdraw(job):
            tag = self._jobs.pop(job)
            self._site.ended(job)
            self._tags.give_back(tag)
            self._channel.basic_nack(tag, requeue=True)

    def _settle(self, job: Job, ending: Ending) -> None:
        if job.is_over:
            return
        job.is_over = True
        self._site.ended(job)
        if not self.spec.ack_late:
            del self._jobs[job]
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
                self._site.changed()

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
