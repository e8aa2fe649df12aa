"""A consumer's subscription: its channel, and what is said there. What comes through is in `hand`.

Lives in the thread of the connection. A connection that is lost takes all with it: what was not
acknowledged comes again from the broker, and how its jobs end does not matter any more.
Imported by `process`.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pika

from sengu.consumers.model.judge import Origin
from sengu.consumers.model.topology import suspects_queue
from sengu.consumers.worker.hand import Assigned, Hand, Holder
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.runners import Runner

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_CALM_SECONDS = 60.0


class Site(Holder, Protocol):
    """The process that it is in."""

    def changed(self) -> None: ...
    def cancelled(self, subscription: "Subscription") -> None: ...
    def closed(self, subscription: "Subscription", error: BaseException) -> None: ...


class Subscription:
    """From `open` until its channel is lost, which `forget` tells it, or all is settled after
    `cancel`.
    """

    def __init__(self, assigned: Assigned, site: Site) -> None:
        self.spec = assigned.spec
        self._assigned = assigned
        self._site = site
        self._channel: Any = None
        self._hand = Hand(assigned, site)
        self._steps: Iterator[None] = iter(())
        self._is_opening = self._is_subscribing = False
        self.is_asking = False
        self._is_to_sync = self._is_syncing = False
        self._consumer_tag: str | None = None
        self._is_ending = False
        self._closings = 0
        self._closed_at = -math.inf

    @property
    def is_subscribed(self) -> bool:
        return self._consumer_tag is not None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in hand, and nothing will come."""
        return not self.is_asking and self._is_idle and not self._is_to_sync

    @property
    def moves_suspects_since(self) -> float | None:
        return self._hand.moves_suspects_since

    @property
    def _is_idle(self) -> bool:
        is_coming = self.is_subscribed or self._is_subscribing
        return not is_coming and self._hand.is_empty

    def open(self, connection: Any) -> None:
        if not self._is_opening and self._channel is None:
            self._is_opening = True
            connection.channel(on_open_callback=self._begin)

    def forget(self) -> None:
        """The channel is lost. Jobs that have begun go on, and nobody asks how they end."""
        self._hand.forget()
        self._consumer_tag = None
        self._steps = iter(())  # an answer that was read already is to none of them
        self._is_opening = self._is_subscribing = self.is_asking = False
        self._is_to_sync = self._is_syncing = False
        self._channel = None

    def next_pause(self, now: float) -> float:
        """How long to wait before it is opened again; longer each time that it closes soon."""
        self._closings = self._closings + 1 if now < self._closed_at + _CALM_SECONDS else 0
        self._closed_at = now
        return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**self._closings)

    def cancel(self) -> None:
        """Let nothing more come, give back what has not begun, and have the rest finish."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._channel is None:
            return
        self._cancel()
        self._give_back()

    def flush(self) -> None:
        """Acknowledge what was settled."""
        if self._channel is not None and self._channel.is_open:
            for tag, multiple in self._hand.acknowledgements():
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

    def look_for_suspects(self, found: Callable[["Subscription"], None]) -> None:
        """Have `found` called if there are any. None is taken."""

        def take(frame: Any) -> None:
            self.is_asking = False
            if frame.method.message_count:
                found(self)

        if self.is_subscribed and not self.is_asking and not self._is_ending:
            self.is_asking = True
            queue = suspects_queue(self.spec.queue)
            self._channel.queue_declare(queue, passive=True, callback=take)

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
        if channel is not self._channel:  # it is lost, and this was still to be read
            return
        job = self._hand.take(method, properties, body, Origin.MAIN)
        if self._is_ending:
            self._give_back()
        elif job is not None:
            self._hand.begin(job)

    def _give_back(self) -> None:
        for tag in self._hand.give_back():
            self._channel.basic_nack(tag, requeue=True)

    def _take_suspect(
        self,
        take: Callable[[Job, Runner], None],
        channel: Any,
        method: Any,
        properties: Any,
        body: bytes,
    ) -> None:
        if channel is not self._channel:
            return
        self.is_asking = False
        job = self._hand.take(method, properties, body, Origin.SUSPECTS)
        if job is not None:
            take(job, self._assigned.suspects)
