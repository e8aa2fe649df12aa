"""The queues, exchanges and bindings that a consumer needs, as data.

Pure. Beside its own queue a consumer has: a queue for each delay of a retry, in which messages wait
until their time is up, so that none waits behind one with a longer delay; one for messages that
are dead; and one for suspects, which may have killed the workers that had them. Messages go from
one to another only when the next has confirmed them. Declared by `outbox`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sengu.consumers.model.spec import Binding, ConsumerSpec

Arguments = Mapping[str, Any]


class Queue(msgspec.Struct, frozen=True):
    """As queue.declare takes it (AMQP 0-9-1)."""

    name: str
    durable: bool
    arguments: Arguments


class Exchange(msgspec.Struct, frozen=True):
    """As exchange.declare takes it."""

    name: str
    type: str
    durable: bool
    arguments: Arguments


class Bind(msgspec.Struct, frozen=True):
    """As queue.bind takes it."""

    queue: str
    exchange: str
    routing_key: str
    arguments: Arguments


class Topology(msgspec.Struct, frozen=True):
    """To be declared in this order."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    binds: tuple[Bind, ...]


def retry_queue(queue: str, seconds: float) -> str:
    """Where messages wait that are to be tried again after so long."""
    return f"{queue}.retry.{_delay_text(seconds)}"


def suspects_queue(queue: str) -> str:
    """Where messages are that may have killed workers: they are handled one at a time."""
    return f"{queue}.suspects"


def dead_queue(queue: str) -> str:
    """Where messages end that are not tried again."""
    return f"{queue}.dead"


def topology(spec: ConsumerSpec) -> Topology:
    return Topology(tuple(_exchanges(spec.bindings)), tuple(_queues(spec)), tuple(_binds(spec)))


def _exchanges(bindings: tuple[Binding, ...]) -> Iterator[Exchange]:
    for one in bindings:
        if one.exchange and not one.exchange.startswith("amq."):  # those are there already
            yield Exchange(one.exchange, one.type, one.durable, one.exchange_arguments)


def _binds(spec: ConsumerSpec) -> Iterator[Bind]:
    for one in spec.bindings:
        for key in one.routing_keys or (spec.queue,):
            yield Bind(spec.queue, one.exchange, key, one.arguments)


def _queues(spec: ConsumerSpec) -> Iterator[Queue]:
    # Dead before the others: those send there what the broker gives up.
    dead = dead_queue(spec.queue)
    yield Queue(dead, spec.durable, _type(spec))
    yield Queue(spec.queue, spec.durable, {**_to(dead, spec.type), **_type(spec), **spec.arguments})
    for seconds in sorted(set(spec.retrying.delays)):
        waits = {"x-message-ttl": round(seconds * 1000)}
        arguments = {**_to(spec.queue, spec.type), **_type(spec), **waits}
        yield Queue(retry_queue(spec.queue, seconds), spec.durable, arguments)
    if spec.ack_late:
        # Whatever type the others are: this one tells how often a message came back.
        arguments = {**_to(dead, "quorum"), "x-queue-type": "quorum"}
        yield Queue(suspects_queue(spec.queue), True, arguments)


def _type(spec: ConsumerSpec) -> Arguments:
    return {"x-queue-type": spec.type}


def _to(queue: str, type_: str) -> Arguments:
    """Where the broker puts what it takes out of a queue by itself."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    if type_ == "quorum":
        # Else what is on its way is lost with a node (RabbitMQ, Quorum Queues, Dead Lettering).
        arguments["x-dead-letter-strategy"] = "at-least-once"
        arguments["x-overflow"] = "reject-publish"
    return arguments


def _delay_text(seconds: float) -> str:
    """`10s`, `1500ms`: a name that says all of the delay."""
    milliseconds = round(seconds * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return f"{milliseconds}ms" if rest else f"{whole}s"
