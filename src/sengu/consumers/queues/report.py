"""How full the queues of consumers are, and who consumes them: what `sengu queues` shows.

AMQP tells the exact number of messages ready, and of consumers (`counting`); `management` the rest.
Imported by the verbs that ask the broker.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
import pika
from pika import exceptions as ex

from sengu.consumers.broker.address import BrokerError, connect, explain, persist
from sengu.consumers.model.topology import dead_queue, suspects_queue
from sengu.consumers.queues.counting import Count, count_messages
from sengu.consumers.queues.management import Figures, Told
from sengu.model.broker import Address
from sengu.posix import clock

_NOT_FOUND = 404  # AMQP 0-9-1, reply codes
_DELAY = re.compile(r"[0-9]+m?s")
_WORKER = re.compile(r"(?P<service>.+) (?P<generation>[0-9]+)/[0-9]+ \(pid [0-9]+\)")


class Generation(msgspec.Struct, frozen=True):
    """So many consumers of a queue are workers of that service and generation."""

    service: str
    generation: int
    consumers: int


class QueueReport(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer's queue and its siblings. None is what is not known.

    Rates are in messages per second. `consumers` that are in no generation are others' than ours.
    """

    queue: str
    ready: int | None = None
    unacked: int | None = None
    rate_in: float | None = None
    rate_out: float | None = None
    retries: int | None = None
    suspects: int | None = None
    dead: int | None = None
    consumers: int | None = None
    generations: tuple[Generation, ...] | None = None
    problem: str | None = None


class Session:
    """A connection that asks about queues. Raises BrokerError from everything it does."""

    def __init__(self, addresses: Sequence[Address], timeout_seconds: float) -> None:
        self.address, self.connection = persist(
            addresses,
            clock.monotonic() + timeout_seconds,
            lambda address, _seconds: (address, connect((address,), 0)),
        )
        self._channel = self._open()

    def count(self, queue: str) -> Count | None:
        """None if there is no such queue."""
        try:
            if not self._channel.is_open:  # the last answer was an error
                self._channel = self._open()
            return count_messages(self._channel, queue)
        except ex.ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND and "no queue" in error.reply_text:
                return None
            raise explain(error, self.address) from error
        except ex.AMQPError as error:
            raise explain(error, self.address) from error

    def close(self) -> None:
        close(self.connection)

    def _open(self) -> pika.adapters.blocking_connection.BlockingChannel:
        try:
            return self.connection.channel()
        except ex.AMQPError as error:
            raise explain(error, self.address) from error


def close(connection: pika.BlockingConnection) -> None:
    """Whatever state it is in."""
    with suppress(ex.AMQPError):  # it is closed already, or broken: all the same
        connection.close()


def consumed(names: Collection[str]) -> tuple[str, ...]:
    """Those queues that have siblings, as a consumer makes them; in the order of their names."""
    known = set(names)
    waiting = {queue for name in known if (queue := _waits_for(name)) is not None}
    return tuple(
        sorted(
            name
            for name in known
            if dead_queue(name) in known or suspects_queue(name) in known or name in waiting
        )
    )


def retry_queues(queue: str, names: Iterable[str]) -> tuple[str, ...]:
    """In which messages wait for their time to be tried again."""
    return tuple(name for name in names if _waits_for(name) == queue)


def _waits_for(name: str) -> str | None:
    queue, dot, delay = name.rpartition(".retry.")
    return queue if dot and queue and _DELAY.fullmatch(delay) else None


def report(
    queue: str,
    count: Callable[[str], Count | None],
    told: Told | None,
    waiting: Sequence[str] | None,
) -> QueueReport:
    """What is known of a queue. `waiting` are its retry queues, None if it is not known which.

    What the broker says against one queue is in its report; raises BrokerError when it is gone.
    """
    try:
        own = count(queue)
        suspects, dead = count(suspects_queue(queue)), count(dead_queue(queue))
        retries = None if waiting is None else {name: count(name) for name in waiting}
    except BrokerError as error:
        if error.is_final:
            raise
        return QueueReport(queue=queue, problem=str(error))
    figures = (told.figures.get(queue) if told is not None else None) or Figures()
    being_handled = told.figures.get(suspects_queue(queue)) if told is not None else None
    found = QueueReport(
        queue=queue,
        unacked=figures.unacked,
        rate_in=figures.rate_in,
        rate_out=figures.rate_out,
        retries=None if retries is None else _sum_waiting(retries, told),
        suspects=_sum(suspects, being_handled),
        dead=None if dead is None else dead.ready,
    )
    if own is None:
        return msgspec.structs.replace(found, problem=f"there is no queue {queue!r}")
    names = None if told is None else told.connections.get(queue, ())
    return msgspec.structs.replace(
        found,
        ready=own.ready,
        consumers=own.consumers,
        generations=None if names is None else generations(names),
    )


def generations(connections: Iterable[str]) -> tuple[Generation, ...]:
    """From the names of connections; the latest generation first, other names left out."""
    counts = Counter(
        (match["service"], int(match["generation"]))
        for name in connections
        if (match := _WORKER.fullmatch(name)) is not None
    )
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[0][1]))
    return tuple(Generation(*key, count) for key, count in ordered)


def _sum(count: Count | None, figures: Figures | None) -> int | None:
    """Those in the hands of a process are suspects too."""
    if count is None:
        return None
    return count.ready + ((figures.unacked or 0) if figures is not None else 0)


def _sum_waiting(counts: Mapping[str, Count | None], told: Told | None) -> int:
    """Those whose time is up are retries too, until the queue that they go to has them."""
    ready = sum(one.ready for one in counts.values() if one is not None)
    figures = (told.figures.get(name, Figures()) for name in counts) if told is not None else ()
    return ready + sum(one.moving or 0 for one in figures)
