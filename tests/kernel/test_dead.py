"""Dead messages in a real RabbitMQ: looked at they stay where they are, and none is ever lost."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pika
import pytest

from sengu.consumers.broker.address import BrokerError, parse_brokers
from sengu.consumers.queues.dead import DeadMessage, Look, revived
from sengu.consumers.queues.report import Session
from tests import processes
from tests.broker import Broker
from tests.system.puppets import wait_until

DEAD = "q.dead"
# Takes so many messages, tells when it has them, and waits for its end.
HOLDER = """
import sys
from sengu.consumers.queues.dead import Look
from sengu.consumers.queues.report import Session
from sengu.model.broker import parse_brokers
session = Session(parse_brokers([sys.argv[1]], {}), 20)
with Look(session.connection, session.address, sys.argv[2]) as look:
    print(len(list(look.messages(int(sys.argv[3])))), flush=True)
    sys.stdin.read()
"""


@contextmanager
def looking(broker: Broker, queue: str = DEAD) -> Iterator[Look]:
    session = Session(parse_brokers([broker.url], {}), 20)
    try:
        with Look(session.connection, session.address, queue) as look:
            yield look
    finally:
        session.close()


def numbers(messages: Sequence[DeadMessage]) -> list[int]:
    return [int(one.body) for one in messages]


def send(broker: Broker, queue: str) -> None:
    """All that are dead, one after the other, without headers."""
    with looking(broker) as look:
        for message in look.messages():
            look.publish(queue, message, {})
            look.remove(message)


def all_numbers(broker: Broker, queue: str = DEAD) -> list[int]:
    """In their order. They stay there."""
    with looking(broker, queue) as look:
        return numbers(list(look.messages()))


@pytest.fixture(params=["quorum", "classic"])
def queue_type(request: pytest.FixtureRequest, broker: Broker) -> str:
    """There are a queue and its dead-letter queue, which has the numbers from 0 to 299."""
    name = str(request.param)
    broker.declare("q", **{"x-queue-type": name})
    broker.declare(DEAD, **{"x-queue-type": name})
    broker.publish_numbers(DEAD, 300)
    return name


@pytest.mark.usefixtures("queue_type")
def test_what_is_looked_at_keeps_its_order(broker: Broker) -> None:
    for most in (4, 1, None, 250, 2, 300, 10):
        with looking(broker) as look:
            found = numbers(list(look.messages(most)))
        assert found == list(range(300 if most is None else most))
    assert all_numbers(broker) == list(range(300))


@pytest.mark.usefixtures("queue_type")
def test_what_is_removed_is_gone_and_the_others_keep_their_order(broker: Broker) -> None:
    for most in (3, 7):
        with looking(broker) as look:
            for one in list(look.messages(most))[1:]:
                look.remove(one)
    assert all_numbers(broker) == [0, *range(9, 300)]


@pytest.mark.usefixtures("queue_type")
def test_who_is_killed_while_it_looks_loses_nothing(broker: Broker) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, broker.url, DEAD, "250"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    processes.keep(holder)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"250\n"
        holder.send_signal(signal.SIGKILL)
    wait_until(lambda: broker.depth(DEAD) == 300, "the broker has noticed")
    assert all_numbers(broker) == list(range(300))


@pytest.mark.usefixtures("queue_type")
def test_who_is_interrupted_gives_everything_back(broker: Broker) -> None:
    def look_and_be_interrupted() -> None:
        with looking(broker) as look:
            next(look.messages())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_and_be_interrupted()
    assert all_numbers(broker) == list(range(300))


def test_what_came_back_often_is_replaced_before_the_broker_drops_it(broker: Broker) -> None:
    """Since RabbitMQ 4.0, a quorum queue drops what came back 21 times."""
    broker.declare(DEAD, **{"x-queue-type": "quorum", "x-delivery-limit": 20})
    properties = pika.BasicProperties(message_id="a", headers={"mine": 1}, delivery_mode=2)
    broker.publish(DEAD, [b"0", b"1"], properties)
    most = 0
    for _ in range(30):
        with looking(broker) as look:
            found = list(look.messages())
        assert numbers(found) == [0, 1]
        most = max(most, *(one.returns for one in found))
    assert 10 < most < 20
    taken = broker.take(DEAD)[0]
    assert (taken.properties.message_id, taken.headers["mine"]) == ("a", 1)


def test_a_copy_has_all_that_the_message_had_but_charges(broker: Broker) -> None:
    broker.declare("q")
    broker.declare(DEAD)
    properties = pika.BasicProperties(
        content_type="text/plain",
        message_id="a",
        correlation_id="b",
        priority=3,
        timestamp=7,
        user_id="guest",
        headers={"sengu-failures": 3, "sengu-reason": "failed", "mine": "1"},
    )
    broker.publish(DEAD, [b"0"], properties)
    with looking(broker) as look:
        (message,) = look.messages()
        look.publish("q", message, revived(message.headers, *message.original("q")))
        look.remove(message)
    assert broker.depth(DEAD) == 0
    (copy,) = broker.take("q")
    assert copy.headers == {"mine": "1", "sengu-exchange": "", "sengu-routing-key": "q"}
    kept = copy.properties
    assert (kept.content_type, kept.message_id, kept.correlation_id) == ("text/plain", "a", "b")
    assert (kept.priority, kept.timestamp, kept.delivery_mode) == (3, 7, 2)


@pytest.mark.usefixtures("queue_type")
def test_a_copy_that_cannot_be_published_leaves_everything_where_it_was(broker: Broker) -> None:
    with pytest.raises(BrokerError, match="no queue 'gone'"):
        send(broker, "gone")
    assert all_numbers(broker) == list(range(300))


@pytest.mark.usefixtures("queue_type")
def test_a_full_queue_is_told_and_nothing_is_lost(broker: Broker) -> None:
    broker.declare("full", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    with pytest.raises(BrokerError, match="full or down"):
        send(broker, "full")
    assert all_numbers(broker, "full") + all_numbers(broker) == list(range(300))


@pytest.mark.usefixtures("queue_type")
def test_a_connection_that_breaks_is_told_and_nothing_is_lost(broker: Broker) -> None:
    def send_and_be_closed() -> None:
        with looking(broker) as look:
            for message in look.messages():
                if message.number == 10:
                    broker.close_connections()
                look.publish("q", message, {})
                look.remove(message)

    with pytest.raises(BrokerError, match="closed by a test"):
        send_and_be_closed()
    wait_until(lambda: (broker.depth(DEAD) or 0) >= 291, "the broker has put back the others")
    # The acknowledgements of the first may have been on their way.
    again, left = all_numbers(broker, "q"), all_numbers(broker)
    assert again == list(range(9))
    assert sorted({*again, *left}) == list(range(300))


def test_a_look_ends_though_somebody_else_has_what_was_counted(broker: Broker) -> None:
    broker.declare(DEAD)
    broker.publish_numbers(DEAD, 3)
    with looking(broker) as look, broker.channel() as other:
        other.basic_get(DEAD)
        assert numbers(list(look.messages())) == [1, 2]
    assert all_numbers(broker) == [0, 1, 2]


@pytest.fixture
def leader(broker: Broker) -> str:
    """Erlang that binds Leader to that of the queue of dead messages, in which are 3."""
    broker.declare(DEAD, **{"x-queue-type": "quorum"})
    broker.publish_numbers(DEAD, 3)
    queue = f'rabbit_misc:r(<<"{broker.vhost}">>, queue, <<"{DEAD}">>)'
    return f"{{ok, Q}} = rabbit_amqqueue:lookup({queue}), {{Leader, _}} = amqqueue:get_pid(Q)"


def test_a_queue_whose_leader_is_busy_is_not_taken_for_empty(broker: Broker, leader: str) -> None:
    with looking(broker) as look:
        assert numbers(list(look.messages(1))) == [0]
        resume = "timer:apply_after(2000, sys, resume, [Leader])"
        broker.ctl("eval", f"{leader}, sys:suspend(Leader), {resume}.")
    assert all_numbers(broker) == [0, 1, 2]


def test_a_queue_whose_leader_does_not_answer_is_no_empty_one(broker: Broker, leader: str) -> None:
    broker.ctl("eval", f"{leader}, sys:suspend(Leader).")
    try:
        with pytest.raises(BrokerError, match=r"nobody can say what queue 'q\.dead' has"):
            all_numbers(broker)
    finally:
        broker.ctl("eval", f"{leader}, sys:resume(Leader).")
    assert all_numbers(broker) == [0, 1, 2]
