"""Consumers that get their messages from exchanges, and foreign clients that write and read."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.broker import Broker
from tests.support import Instance, Sengu, requires, short_directory
from tests.system.consuming import Consuming
from tests.system.puppets import wait_until

SCRIPT = """
def told(name):
    def handle(message):
        tell(name, message.exchange, message.routing_key, message.text())
    handle.__name__ = name
    return handle

a = quick("direct", exchange="shop", routing_keys=["new", "changed"])(told("direct"))
b = quick("topic", exchange="events", exchange_type="topic", routing_keys="shop.#")(told("topic"))
c = quick("fanout", exchange="news", exchange_type="fanout", exchange_durable=False)(told("fanout"))
d = quick(
    "headers",
    exchange="sorted",
    exchange_type="headers",
    bind_arguments={"x-match": "any", "size": "big", "colour": "red"},
)(told("headers"))
e = quick(
    "many",
    bindings=[Binding("shop", ("new",)), Binding("amq.topic", ("*.many",), "topic")],
)(told("many"))

@quick("retried", exchange="shop", retries=1, backoff=[0.02])
def retried(message):
    tell("retried", message.attempt, message.exchange, message.routing_key)
    raise ValueError
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = short_directory()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def instance(shared_broker: Broker, place: Path) -> Iterator[Instance]:
    """One instance, and with it the virtual host of all tests here."""
    sengu = Sengu()
    with shared_broker.own_vhost():
        yield Consuming(sengu, shared_broker, place).run(SCRIPT)
        sengu.close()


def test_a_direct_exchange_has_its_keys(instance: Instance, shared_broker: Broker) -> None:
    shared_broker.publish("changed", [b"1"], exchange="shop")
    instance.wait_for_line("^direct shop changed 1$")
    shared_broker.publish("direct", [b"2"])
    instance.wait_for_line("^direct  direct 2$")


def test_a_topic_exchange_has_patterns(instance: Instance, shared_broker: Broker) -> None:
    shared_broker.publish("shop.a.b", [b"1"], exchange="events")
    instance.wait_for_line("^topic events shop.a.b 1$")


def test_a_fanout_exchange_gives_all(instance: Instance, shared_broker: Broker) -> None:
    shared_broker.publish("whatever", [b"1"], exchange="news")
    instance.wait_for_line("^fanout news whatever 1$")


def test_a_headers_exchange_compares(instance: Instance, shared_broker: Broker) -> None:
    properties = pika.BasicProperties(headers={"colour": "red"})
    shared_broker.publish("", [b"1"], properties, exchange="sorted")
    instance.wait_for_line("^headers sorted  1$")
    with pytest.raises(pika.exceptions.UnroutableError):
        shared_broker.publish("", [b"2"], pika.BasicProperties(headers={}), exchange="sorted")


def test_a_queue_may_have_several_exchanges(instance: Instance, shared_broker: Broker) -> None:
    shared_broker.publish("new", [b"1"], exchange="shop")
    shared_broker.publish("as.many", [b"2"], exchange="amq.topic")
    instance.wait_for_line("^many shop new 1$")
    instance.wait_for_line("^many amq.topic as.many 2$")
    instance.wait_for_line("^direct shop new 1$")


def test_a_retry_is_for_its_consumer_only_and_keeps_where_it_was_published(
    instance: Instance, shared_broker: Broker
) -> None:
    """Its key is the name of the queue, if none is given."""
    shared_broker.publish("retried", [b""], exchange="shop")
    shared_broker.take("retried.dead")
    instance.wait_for_line("^retried 1 shop retried$")
    instance.wait_for_line("^retried 2 shop retried$")


def test_other_clients_write_and_read(instance: Instance, shared_broker: Broker) -> None:
    def run(program: str, *args: str) -> str:
        command = [requires(program), f"--url={shared_broker.url}", *args]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        ).stdout

    run("amqp-publish", "--exchange=shop", "--routing-key=new", "--body=hello")
    instance.wait_for_line("^direct shop new hello$")
    for body in ("one", "two"):
        run("amqp-publish", "--routing-key=retried", f"--body={body}")
    wait_until(lambda: shared_broker.depth("retried.dead") == 2)
    assert run("amqp-consume", "--queue=retried.dead", "--count=1", "cat") == "one"
    assert run("amqp-get", "--queue=retried.dead") == "two"
