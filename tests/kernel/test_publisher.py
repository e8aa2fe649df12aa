"""Publishing to a real RabbitMQ: what is confirmed is there, and what is not is told."""

import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from sengu.consumers import BrokerError, Publisher, PublishError
from sengu.consumers.broker import confirmed
from sengu.consumers.broker.address import connect, explain, parse_brokers
from tests.broker import Broker


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    """There is a queue q."""
    broker.declare("q")
    with Publisher(broker.url) as publisher:
        yield publisher


def test_a_message_is_there_as_it_was_published(broker: Broker, publisher: Publisher) -> None:
    given = publisher.publish(
        "q", {"n": 1}, headers={"from": "me"}, priority=3, expiration=60, message_id="first"
    )
    random = publisher.publish("q", "text", persistent=False)
    first, second = broker.take("q", 2)
    properties = first.properties
    assert (given, properties.message_id, first.body) == ("first", "first", b'{"n":1}')
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert (properties.priority, properties.expiration) == (3, "60000")
    assert first.headers == {"from": "me"}
    assert (second.properties.content_type, second.properties.delivery_mode) == ("text/plain", 1)
    assert second.properties.message_id == random


def test_an_exchange_gets_it_with_its_routing_key(broker: Broker, publisher: Publisher) -> None:
    with broker.channel() as channel:
        channel.queue_bind("q", "amq.topic", "eu.*")
    publisher.publish("eu.fr", b"named", exchange="amq.topic")
    publisher.publish("any", b"given", exchange="amq.topic", routing_key="eu.de")
    assert [one.deliver.routing_key for one in broker.take("q", 2)] == ["eu.fr", "eu.de"]


def test_many_are_published_at_once_in_their_order(broker: Broker, publisher: Publisher) -> None:
    assert publisher.publish_all("q", range(3000)) == 3000
    assert [int(one.body) for one in broker.take("q", 3000)] == list(range(3000))


def test_what_no_queue_gets_is_told(publisher: Publisher) -> None:
    with pytest.raises(PublishError, match="there is no queue 'nope'; start its consumer"):
        publisher.publish("nope", 1)
    with pytest.raises(PublishError, match="3 of 3 messages: there is no queue"):
        publisher.publish_all("nope", range(3))
    with pytest.raises(PublishError, match=r"no queue gets what .* exchange 'amq.topic' with"):
        publisher.publish("q", 1, exchange="amq.topic")
    with pytest.raises(PublishError, match="there is no exchange 'nope'"):
        publisher.publish("q", 1, exchange="nope")


def test_what_the_broker_refuses_is_told(broker: Broker, publisher: Publisher) -> None:
    broker.declare("small", durable=True, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    publisher.publish("small", 1)
    with pytest.raises(PublishError, match="has refused what was published to queue 'small'"):
        publisher.publish("small", 2)


def test_after_a_failure_it_goes_on(broker: Broker, publisher: Publisher) -> None:
    for queue, exchange in (("nope", ""), ("q", "nope"), ("q" * 300, "")):
        with pytest.raises(PublishError):
            publisher.publish(queue, 1, exchange=exchange)
        publisher.publish("q", 1)
    assert len(broker.take("q", 3)) == 3


def test_a_connection_that_broke_meanwhile_is_made_again(
    broker: Broker, publisher: Publisher
) -> None:
    publisher.publish("q", 1)
    broker.close_connections()
    publisher.publish("q", 2)
    publisher.close()
    publisher.publish("q", 3)
    assert [one.body for one in broker.take("q", 3)] == [b"1", b"2", b"3"]


def test_a_forked_child_has_a_connection_of_its_own(broker: Broker, publisher: Publisher) -> None:
    publisher.publish("q", "before")
    pid = os.fork()
    if pid == 0:
        try:
            publisher.publish("q", "child")
            publisher.close()
            os._exit(0)
        finally:  # whatever it is, pytest is not to go on twice
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    publisher.publish("q", "parent")
    assert [one.body for one in broker.take("q", 3)] == [b"before", b"child", b"parent"]


def test_threads_share_it(broker: Broker, publisher: Publisher) -> None:
    def publish(number: int) -> None:
        for step in range(20):
            publisher.publish("q", number * 100 + step)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {number * 100 + step for number in range(4) for step in range(20)}
    assert {int(one.body) for one in broker.take("q", 80)} == expected


def test_the_next_broker_is_taken_if_one_does_not_answer(broker: Broker) -> None:
    broker.declare("q")
    with Publisher(["amqp://me:pw@127.0.0.1:1", broker.url]) as publisher:
        publisher.publish("q", 1)
    assert broker.depth("q") == 1


def test_what_is_never_confirmed_is_published_again_on_another_connection(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "_SILENT_SECONDS", 0.5)
    broker.declare("q")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = threading.Thread(target=_confirm_nothing, args=(listener, broker.port))
        way.start()
        urls = broker.url_at("127.0.0.1", listener.getsockname()[1]), broker.url
        with Publisher(urls) as publisher:
            assert publisher.publish("q", b"forgotten", message_id="same") == "same"
        way.join()
    taken = broker.take("q", 2)
    assert [(one.body, one.properties.message_id) for one in taken] == [(b"forgotten", "same")] * 2


def _confirm_nothing(listener: socket.socket, port: int) -> None:
    """Carries one connection to the broker, which hears no more when it has published."""
    client = listener.accept()[0]
    listener.close()
    has_published = False
    with client, socket.create_connection(("127.0.0.1", port)) as there:
        while True:
            for side in select.select([client, there], [], [])[0]:
                data = side.recv(65536)
                has_published = has_published or b"forgotten" in data
                if side is there and not has_published:
                    client.sendall(data)
                elif side is client:
                    if not data:
                        return
                    there.sendall(data)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("guest:guest@", "guest:hunter2@", "the password of 'guest', or the user, is wrong"),
        ("/test-", "/nope-", "there is no virtual host 'nope-"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(
    old: str, new: str, words: str, broker: Broker
) -> None:
    url = broker.url.replace(old, new)
    publisher = Publisher(url, timeout=3600)
    with pytest.raises(BrokerError, match=words) as raised:
        publisher.publish("q", 1)
    assert raised.value.is_final
    assert "hunter2" not in str(raised.value)
    with pytest.raises(BrokerError, match=words):
        connect(parse_brokers((url,), {}), 3600)


def test_a_queue_that_is_there_otherwise_is_told_in_one_line(broker: Broker) -> None:
    broker.declare("q", durable=True, **{"x-queue-type": "classic"})
    with pytest.raises(Exception, match="PRECONDITION_FAILED") as raised:
        broker.declare("q", durable=True, **{"x-queue-type": "quorum"})
    (address,) = parse_brokers((broker.url,), {})
    error = explain(raised.value, address)
    assert error.is_final
    assert str(error).startswith(
        "queue 'q' is there already, with x-queue-type 'classic' and not 'quorum'; "
        "set type='classic' in the consumer"
    )
