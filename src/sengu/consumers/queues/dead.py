"""Dead messages of a consumer: looked at, and sent back or thrown away. For `sengu dead`.

Whoever looks at messages takes them, without an acknowledgement, and gives them back by closing the
channel, as does who is killed. A quorum queue puts what a closed channel had before all others, or
behind what came back before and is still there; what is nacked, at its end (RabbitMQ 3.10). So the
order stays if all that has come back before is taken, and comes back, too.

And it counts how often each came back, to throw it away after its delivery limit, which is 20 since
RabbitMQ 4.0. So what came back often is replaced by a copy, which has not.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple

import pika
from pika import exceptions as ex

from sengu.consumers.broker.address import BrokerError, explain
from sengu.consumers.model import judge
from sengu.consumers.queues.counting import count_messages
from sengu.consumers.queues.report import close
from sengu.errors import SenguError
from sengu.model.broker import Address
from sengu.posix import clock

_BATCH = 20  # taken at a time, if those before were removed
_MOST_PREFETCHED = 65535
_SILENCE_SECONDS = 5.0  # who has messages that were counted and do not come is somebody else
_RETURN_SECONDS = 5.0
_LOOKS_EVERY_SECONDS = 0.05
_MOST_RETURNS = 12
# A channel that closes forgets acknowledgements to a quorum queue if more are on their way than its
# quorum_commands_soft_limit, which is 32 (rabbit_fifo_client, settle/3).
_MOST_UNSETTLED = 20

# What it is charged with; and what the broker has noted on its way. Not what it was published with.
_CHARGES = (
    judge.FAILURES,
    judge.SUSPECTED,
    judge.REASON,
    judge.ERROR,
    judge.STACK,
    judge.MOVED_AT,
)
_BROKERS_NOTES = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-")


class DeadMessage(NamedTuple):
    """`number` is its place in the dead-letter queue, from 1."""

    number: int
    tag: int
    exchange: str
    routing_key: str
    properties: Any
    body: bytes

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.properties.headers or {}

    @property
    def id(self) -> str | None:
        found: str | None = self.properties.message_id
        return found

    @property
    def reason(self) -> str:
        """An outcome of a job, or the broker's own word: expired, maxlen, rejected."""
        death = _death(self.headers)
        return _text(self.headers, judge.REASON) or str(death.get("reason") or "").replace("_", " ")

    @property
    def died_at(self) -> int | None:
        """UNIX time; None if nobody has noted it."""
        at = self.headers.get(judge.MOVED_AT)
        if isinstance(at, int):
            return int(at)
        noted = _death(self.headers).get("time")
        return round(noted.timestamp()) if isinstance(noted, datetime) else None

    @property
    def error(self) -> str:
        return _text(self.headers, judge.ERROR)

    @property
    def stack(self) -> str:
        return _text(self.headers, judge.STACK)

    @property
    def failures(self) -> int:
        found = self.headers.get(judge.FAILURES)
        return found if isinstance(found, int) else 0

    @property
    def returns(self) -> int:
        found = self.headers.get(judge.DELIVERY_COUNT)
        return found if isinstance(found, int) else 0

    def original(self, queue: str) -> tuple[str, str]:
        """Exchange and routing key that it was published with, as far as that is known."""
        headers = self.headers
        if judge.EXCHANGE in headers and judge.ROUTING_KEY in headers:
            return _text(headers, judge.EXCHANGE), _text(headers, judge.ROUTING_KEY)
        death = _death(headers)
        keys = death.get("routing-keys")
        if death and isinstance(keys, list) and keys:
            return str(death.get("exchange") or ""), str(keys[0])
        return "", queue


class Refs(NamedTuple):
    """Which messages are meant: by their numbers, or all that have one of the ids."""

    numbers: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()

    def match(self, message: DeadMessage) -> bool:
        return message.number in self.numbers or message.id in self.ids

    def missing(self, found: Sequence[DeadMessage]) -> list[str]:
        """What none of these is."""
        numbers = self.numbers - {one.number for one in found}
        return [*map(str, sorted(numbers)), *sorted(self.ids - {one.id for one in found})]


def parse_refs(words: Sequence[str]) -> Refs:
    """A word of up to nine digits is a number, `id:` before it makes it an id."""
    numbers = frozenset(int(word) for word in words if _is_number(word))
    ids = frozenset(word.removeprefix("id:") for word in words if not _is_number(word))
    return Refs(numbers, ids)


def revived(headers: Mapping[str, Any], exchange: str, routing_key: str) -> dict[str, Any]:
    """Those of a message that is to be tried afresh."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _CHARGES and not name.startswith(_BROKERS_NOTES)
    }
    return kept | {judge.EXCHANGE: exchange, judge.ROUTING_KEY: routing_key}


class Look:
    """Messages of a queue in their order, which are ours until the end of the context.

    Those that nobody has removed go back then. Raises BrokerError from everything it does.
    """

    def __init__(self, connection: pika.BlockingConnection, address: Address, queue: str) -> None:
        self._connection = connection
        self._address = address
        self._queue = queue
        self._arrived: deque[tuple[Any, Any, bytes]] = deque()
        self._held: dict[int, DeadMessage] = {}  # to be given back, in order
        self._has_old = False
        self._is_last_new = False
        self._taken = 0
        self._takes = 0
        self._ahead: deque[DeadMessage] = deque()
        self._unsettled = 0
        try:
            self._channel = connection.channel()
            self._confirming = connection.channel()
            self._confirming.confirm_delivery()
            self.count = count_messages(self._channel, queue).ready
        except ex.AMQPError as error:
            raise explain(error, address) from error

    def __enter__(self) -> "Look":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None or (issubclass(kind, SenguError) and self._channel.is_open):
            try:
                self._give_back()
                return
            except ex.AMQPError as problem:
                raise explain(problem, self._address) from problem
        close(self._connection)  # then the broker puts back what we had

    def messages(self, most: int | None = None) -> Iterator[DeadMessage]:
        """So many, or all that there were at the beginning."""
        most = self.count if most is None else min(most, self.count)
        given = 0
        try:
            while given < most:
                if not self._ahead:
                    self._ahead.extend(self._take(most - given))
                if not self._ahead:
                    return
                yield self._ahead.popleft()
                given += 1
        except ex.AMQPError as error:
            raise explain(error, self._address) from error

    def remove(self, message: DeadMessage) -> None:
        """When the context has ended, it is gone."""
        try:
            self._ack(message.tag)
        except ex.AMQPError as error:
            raise explain(error, self._address) from error
        del self._held[message.tag]

    def publish(self, queue: str, message: DeadMessage, headers: Mapping[str, Any]) -> None:
        """A copy, to a queue; has ended when it is safe there. Raises SenguError."""
        properties = pika.BasicProperties(**vars(message.properties))
        properties.headers = dict(headers)
        properties.delivery_mode = 2
        properties.expiration = properties.user_id = None  # the broker compares it with ours
        try:
            self._confirming.basic_publish("", queue, message.body, properties, mandatory=True)
        except ex.UnroutableError as error:
            raise BrokerError(
                f"there is no queue {queue!r} any more; start its consumer, which makes it"
            ) from error
        except ex.NackError as error:
            raise BrokerError(
                f"the broker has refused a message to {queue!r}: the queue is full or down; try "
                "again later, see sengu queues"
            ) from error
        except ex.AMQPError as error:
            raise explain(error, self._address) from error

    def _ack(self, tag: int) -> None:
        self._channel.basic_ack(tag)
        self._unsettled += 1
        if self._unsettled == _MOST_UNSETTLED:
            self._settle()

    def _settle(self) -> None:
        """Wait until the broker has done what was acknowledged: until it answers what it does after
        that. Nothing does without taking a message, if there is one.
        """
        if self._taken < self.count:
            self._ahead.extend(self._take(1))
        else:
            self._channel.basic_get(self._queue)
        self._unsettled = 0

    def _take(self, most: int) -> list[DeadMessage]:
        """The next ones, by a consumer that has as many as it may have when it is cancelled.

        What several consumers had comes back in the order of their tags, if they are not more than
        32; so each has as many as all before it, if those are not removed.
        """
        self._unsettled = 0  # as it is done when the consumer is there
        channel = self._channel
        size = min(most, max(_BATCH, len(self._held)), _MOST_PREFETCHED)
        channel.basic_qos(prefetch_count=size)
        self._takes += 1
        consumer = channel.basic_consume(
            self._queue,
            lambda _channel, *what: self._arrived.append(what),
            consumer_tag=f"sengu-dead-{self._takes:06}",
        )
        until = clock.monotonic() + _SILENCE_SECONDS
        while len(self._arrived) < size and (left := until - clock.monotonic()) > 0:
            before = len(self._arrived)
            self._connection.process_data_events(left)
            if len(self._arrived) > before:
                until = clock.monotonic() + _SILENCE_SECONDS
        channel.basic_cancel(consumer)
        batch = [self._hold(*what) for what in self._arrived]
        self._arrived.clear()
        return batch

    def _hold(self, method: Any, properties: Any, body: bytes) -> DeadMessage:
        self._taken += 1
        tag = method.delivery_tag
        message = DeadMessage(
            self._taken, tag, method.exchange, method.routing_key, properties, body
        )
        self._has_old |= message.returns >= _MOST_RETURNS
        self._is_last_new = not message.returns
        self._held[tag] = message
        return message

    def _give_back(self) -> None:
        while self._held and not self._is_last_new and self._taken < self.count:
            if not self._take(self.count - self._taken):
                break
        if self._has_old:
            for tag, message in self._held.items():
                kept = {k: v for k, v in message.headers.items() if k != judge.DELIVERY_COUNT}
                self.publish(self._queue, message, kept)
                self._channel.basic_ack(tag)  # done by the time that the next copy is confirmed
                self._unsettled = 1
            self._held.clear()
        if self._unsettled:
            self._settle()
        with suppress(BrokerError, ex.AMQPError):  # whatever that may be, they come back
            self._await_return()
        if self._channel.is_open:
            self._channel.close()

    def _await_return(self) -> None:
        """A quorum queue has them again when its log is written, which is after the channel's end;
        and who looks next is to find them."""
        before = count_messages(self._confirming, self._queue).ready
        self._channel.close()
        until = clock.monotonic() + _RETURN_SECONDS
        while clock.monotonic() < until:
            if count_messages(self._confirming, self._queue).ready >= before + len(self._held):
                return
            self._connection.sleep(_LOOKS_EVERY_SECONDS)


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The broker's note on where it was first dead-lettered; the latest is the first of these."""
    deaths = headers.get("x-death")
    first = deaths[-1] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _text(headers: Mapping[str, Any], name: str) -> str:
    found = headers.get(name)
    return found if isinstance(found, str) else ""


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10
