"""What RabbitMQ makes of a consumer's queues, and what it says of a message that comes back."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pika
import pika.exceptions
import pytest

from sengu.consumers.model import judge
from sengu.consumers.model.judge import Delivered, Ending, Move, Origin, Outcome, admit, conclude
from sengu.consumers.model.spec import Binding, ConsumerSpec, Retrying, check
from sengu.consumers.model.topology import dead_queue, retry_queue, suspects_queue, topology
from tests.broker import Broker, Channel, Taken
from tests.broker_nodes import Node

LONGEST_SECONDS = 86400.0 * 365
# Nothing is in it until a test's own consumer has started; then it waits that long.
PATIENCE_SECONDS = 20.0


def spec_of(kind: str = "quorum", **options: Any) -> ConsumerSpec:
    options = {"retrying": Retrying((0.05, 60.0, LONGEST_SECONDS))} | options
    return check(ConsumerSpec(name="handle", queue="downloads", type=kind, **options))


def declare(broker: Broker, spec: ConsumerSpec) -> None:
    made = topology(spec)
    with broker.channel() as channel:
        for exchange in made.exchanges:
            channel.exchange_declare(
                exchange.name,
                exchange.type,
                durable=exchange.durable,
                arguments=dict(exchange.arguments),
            )
        for queue in made.queues:
            channel.queue_declare(
                queue.name, durable=queue.durable, arguments=dict(queue.arguments)
            )
        for bind in made.binds:
            channel.queue_bind(bind.queue, bind.exchange, bind.routing_key, dict(bind.arguments))


def delivered(message: Taken, origin: Origin = Origin.MAIN) -> Delivered:
    deliver = message.deliver
    assert deliver.exchange is not None
    assert deliver.routing_key is not None
    return Delivered(
        message.headers, deliver.exchange, deliver.routing_key, bool(deliver.redelivered), origin
    )


def move(broker: Broker, message: Taken, moved: Move | None) -> None:
    assert moved is not None
    properties = pika.BasicProperties(delivery_mode=2, headers=dict(moved.headers))
    broker.publish(moved.queue, [message.body], properties)


class Held(NamedTuple):
    """A message that a consumer has and does not acknowledge."""

    channel: Channel
    tag: int
    delivered: Delivered


@contextmanager
def holding(broker: Broker, queue: str) -> Iterator[Held]:
    """Its connection is closed at the end of the context."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    try:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        got: list[Taken] = []
        consumer = channel.basic_consume(
            queue,
            lambda _, deliver, properties, body: got.append(
                Taken(body, properties.headers or {}, properties, deliver)
            ),
        )
        connection.process_data_events(PATIENCE_SECONDS)
        assert got, f"nothing came from {queue}"
        channel.basic_cancel(consumer)  # so that what is given back does not come at once
        tag = got[0].deliver.delivery_tag
        assert tag is not None
        yield Held(channel, tag, delivered(got[0]))
    finally:
        if connection.is_open:
            connection.close()


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_all_queues_can_be_made_and_made_again(broker: Broker, kind: str) -> None:
    spec = spec_of(
        kind,
        bindings=(Binding("shop", ("new.#",), "topic"), Binding("amq.fanout")),
        arguments={"x-max-length": 1000},
    )
    declare(broker, spec)
    declare(broker, spec)
    broker.publish("new.order", [b"1"], exchange="shop")
    broker.publish("", [b"2"], exchange="amq.fanout")
    assert broker.depth("downloads") == 2
    for queue in topology(spec).queues:
        assert broker.depth(queue.name) is not None, queue


def test_a_consumer_with_other_retries_makes_the_queues_that_it_lacks(broker: Broker) -> None:
    declare(broker, spec_of(retrying=Retrying((1.0,))))
    declare(broker, spec_of(retrying=Retrying((2.0, 4.0))))
    assert broker.depth("downloads.retry.4s") == 0


def test_two_kinds_of_one_queue_are_a_mismatch(broker: Broker) -> None:
    declare(broker, spec_of("classic"))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="PRECONDITION_FAILED"):
        declare(broker, spec_of("quorum"))


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_message_comes_back_from_its_retries_with_all_that_it_had(
    broker: Broker, kind: str
) -> None:
    spec = spec_of(kind, retrying=Retrying((0.05,) * 4))
    declare(broker, spec)
    properties = pika.BasicProperties(
        delivery_mode=2, headers={"mine": "é", "CC": ["other"]}, message_id="7"
    )
    broker.publish("downloads", [b"body"], properties)
    for failures in range(1, 5):
        message = broker.take("downloads")[0]
        ending = Ending(Outcome.FAILED, f"no {failures}")
        move(broker, message, conclude(spec, delivered(message), ending))
    message = broker.take("downloads")[0]
    assert message.body == b"body"
    assert message.headers["mine"] == "é"
    assert message.headers[judge.FAILURES] == 4
    assert message.headers[judge.ERROR] == "no 4"
    assert message.headers[judge.CARBON_COPIES] == ["other"]
    assert judge.original(delivered(message)) == ("", "downloads")
    assert message.headers["x-first-death-reason"] == "expired"
    assert delivered(message).returns == 0
    assert broker.depth(retry_queue("downloads", 0.05)) == 0


def test_retries_come_though_their_queue_was_deleted_or_the_broker_restarted(
    own_broker: Node,
) -> None:
    spec = spec_of(retrying=Retrying((1.0,)))
    waiting = retry_queue("downloads", 1.0)
    declare(own_broker, spec)
    own_broker.publish_numbers(waiting, 1)
    own_broker.take("downloads")  # by now the broker knows the way
    own_broker.delete("downloads")  # before any of those is there, which would go with it
    own_broker.publish_numbers(waiting, 50)
    declare(own_broker, spec)
    take_different(own_broker, "downloads", 50)
    own_broker.publish_numbers(waiting, 50)
    own_broker.restart()
    take_different(own_broker, "downloads", 50)


def take_different(broker: Broker, queue: str, count: int) -> None:
    """What the broker moves while it ends may come twice."""
    bodies: set[bytes] = set()
    while len(bodies) < count:
        bodies |= {message.body for message in broker.take(queue)}


def test_a_message_waits_behind_none_that_waits_longer(broker: Broker) -> None:
    declare(broker, spec_of())
    broker.publish(retry_queue("downloads", 60.0), [b"later"])
    broker.publish(retry_queue("downloads", 0.05), [b"soon"])
    assert broker.take("downloads")[0].body == b"soon"
    assert broker.depth(retry_queue("downloads", 60.0)) == 1


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_one_that_the_broker_gave_up_once_can_be_retried(broker: Broker, kind: str) -> None:
    """RabbitMQ drops what its own dead-lettering would send to a queue again: see x-death."""
    spec = spec_of(kind, arguments={"x-message-ttl": 50})
    declare(broker, spec)
    broker.publish("downloads", [b"slow"])
    message = broker.take(dead_queue("downloads"))[0]
    assert message.headers["x-death"][0]["queue"] == "downloads"
    move(broker, message, conclude(spec, delivered(message), Ending(Outcome.FAILED)))
    again = broker.take(dead_queue("downloads"))[0]  # by way of its own queue, where it expired
    assert [death["queue"] for death in again.headers["x-death"]] == [
        "downloads",
        retry_queue("downloads", 0.05),
    ]


@pytest.mark.parametrize(("kind", "counts"), [("quorum", [0, 1, 2, 3]), ("classic", [0, 1, 1, 1])])
@pytest.mark.parametrize("way", ["nack", "reject", "close", "recover"])
def test_what_comes_back_says_how_often(
    broker: Broker, way: str, kind: str, counts: list[int]
) -> None:
    declare(broker, spec_of(kind))
    broker.publish("downloads", [b"1"])
    seen = []
    for _ in counts:
        with holding(broker, "downloads") as held:
            seen.append(held.delivered.returns)
            match way:
                case "nack":
                    held.channel.basic_nack(held.tag, requeue=True)
                case "reject":
                    held.channel.basic_reject(held.tag, requeue=True)
                case "recover":
                    held.channel.basic_recover(requeue=True)
                case _:
                    assert way == "close"
    assert seen == counts


def test_a_copy_begins_to_count_anew(broker: Broker) -> None:
    spec = spec_of()
    declare(broker, spec)
    broker.publish("downloads", [b"1"])
    for _ in range(2):
        with holding(broker, "downloads"):
            pass
    message = broker.take("downloads")[0]
    assert delivered(message).returns == 2
    move(broker, message, admit(spec, delivered(message)))
    suspect = broker.take(suspects_queue("downloads"))[0]
    assert delivered(suspect, Origin.SUSPECTS).returns == 0
    assert admit(spec, delivered(suspect, Origin.SUSPECTS)) is None


def test_connections_that_the_broker_closes_count_as_others(broker: Broker) -> None:
    declare(broker, spec_of())
    broker.publish("downloads", [b"1"])
    with suppress(pika.exceptions.ConnectionClosedByBroker), holding(broker, "downloads"):
        broker.close_connections()
    with holding(broker, "downloads") as held:
        assert held.delivered.returns == 1
