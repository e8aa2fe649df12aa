"""`sengu consume` on a real RabbitMQ: what becomes of messages, by how their jobs end."""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pika
import pytest

from tests.broker import Broker, Taken
from tests.support import Instance, Sengu, short_directory
from tests.system.consuming import Consuming, told
from tests.system.puppets import wait_until

SCRIPT = """
@quick("plain", threads=2)
def plain(message):
    tell("plain", message.text(), message.attempt, threading.current_thread() is not None)

class Classy(Consumer):
    queue = "classy"
    type = "classic"
    retries = 0

    def setup(self):
        self.log.info("sets up")
        self.name = "Anna"

    def handle(self, message):
        tell("classy", self.name, message.data, message.id)
        return Ack()

    def teardown(self):
        tell("classy tears down")

class Waiting(Consumer):
    queue = "waiting"
    type = "classic"
    retries = 0
    prefetch = 7

    async def setup(self):
        self.running = 0

    async def handle(self, message):
        self.running += 1
        if self.running == 7:
            tell("waiting 7 at a time")
        while self.running < 7:
            await asyncio.sleep(0.01)

    async def teardown(self):
        tell("waiting tears down")

started = threading.Barrier(3)

@quick("three", prefetch=5, threads=3)
def three(message):
    started.wait()
    tell("three at a time")

@consumer("failing", retries=2, backoff=[0.02, 0.05])
def failing(message):
    tell("failing", message.attempt, message.exchange, message.routing_key)
    raise ValueError(f"no {message.text()}")

@quick("late", retries=3, backoff=[0.02])
async def late(message):
    if message.attempt < 3:
        sys.exit("not yet")
    tell("late", message.attempt, message.headers["of"])

@quick("wrong")
def wrong(message):
    return Reject("has no address") if message.body == b"1" else Reject

@quick("again")
def again(message):
    if message.headers.get("sengu-reason") != "requeued":
        tell("again", "requeues", message.attempt)
        return Requeue
    tell("again", "handles", message.attempt, message.headers.get("of"))

@quick("json")
def parsed(message):
    tell("json", message.json()["n"])

@quick("typed", content_type="application/json")
def typed(message):
    tell("typed", message.content_type, message.data)

@quick("auto", ack=False)
def auto(message):
    tell("auto", message.text())
    raise ValueError("nobody cares")

@quick("coroutine")
def forgotten(message):
    async def nothing(): ...
    return nothing()

def first(message, following):
    tell("first", message.text())
    try:
        return following(message)
    finally:
        tell("first is done")

def second(message, following):
    if message.body == b"bad":
        raise RuntimeError("of the middleware")
    return following(message) if message.body != b"skip" else Ack

def report(error, message, name):
    tell("reported", name, repr(error), message.text())
    raise ZeroDivisionError("of the reporter")

def measure(report):
    tell("measured", report.consumer, report.queue, report.outcome, report.attempt)
    raise ZeroDivisionError("of the metrics")

@quick(
    "wrapped", middleware=[first, second], error_reporters=[report], metrics=[measure]
)
def wrapped(message):
    tell("wrapped", message.text())
    if message.body == b"fails":
        raise ValueError("of the job")

async def around(message, following):
    tell("around", message.text())
    return await following(message)

@quick("wrapped.async", middleware=[around])
async def wrapped_async(message):
    tell("wrapped.async", message.text())
"""


class Running(NamedTuple):
    instance: Instance
    broker: Broker


@pytest.fixture(scope="module")
def running(shared_broker: Broker) -> Iterator[Running]:
    """One instance with all of the script's consumers, which tests use and do not harm."""
    sengu, directory = Sengu(), short_directory()
    with shared_broker.own_vhost():
        yield Running(Consuming(sengu, shared_broker, directory).run(SCRIPT), shared_broker)
        sengu.close()
    shutil.rmtree(directory)


def dead(running: Running, queue: str, count: int = 1) -> list[Taken]:
    return running.broker.take(f"{queue}.dead", count)


def test_functions_and_classes_handle_what_is_published(running: Running) -> None:
    instance, broker = running
    broker.publish("plain", [b"1"])
    instance.wait_for_line("^plain 1 1 True$")
    instance.wait_for_line("sets up$")
    properties = pika.BasicProperties(content_type="application/json", message_id="x7")
    broker.publish("classy", [b'{"a": 1}'], properties)
    instance.wait_for_line(r"^classy Anna \{'a': 1\} x7$")
    broker.publish("classy", [b"1"])
    instance.wait_for_line(r"^classy Anna b'1' None$")


def test_as_many_threads_as_asked_for_handle_at_a_time(running: Running) -> None:
    """Less, and the barrier would not open."""
    running.broker.publish_numbers("three", 3)
    running.instance.wait_for_line("^three at a time")


def test_a_coroutine_handles_all_of_its_prefetch_at_a_time(running: Running) -> None:
    running.broker.publish_numbers("waiting", 7)
    running.instance.wait_for_line("^waiting 7 at a time")


def test_what_fails_is_tried_again_and_then_dead_with_the_reason(running: Running) -> None:
    instance, broker = running
    broker.publish("failing", [b"way"])
    (message,) = dead(running, "failing")
    instance.wait_for_line("^failing 3 ")  # the broker may have been faster
    assert told(instance, "failing") == ["1  failing", "2  failing", "3  failing"]
    assert message.body == b"way"
    headers = message.headers
    assert (headers["sengu-reason"], headers["sengu-failures"]) == ("failed", 3)
    assert headers["sengu-error"] == "ValueError: no way"
    assert "in failing" in headers["sengu-stack"]
    for delay in ("20ms", "50ms"):
        instance.wait_for_line(f"failing: .*no way; it is tried again in 0.0{delay[0]} s$")
        assert broker.depth(f"failing.retry.{delay}") == 0
    instance.wait_for_line("failing: .*no way; it is in failing.dead$")


def test_what_succeeds_at_last_is_done(running: Running) -> None:
    running.broker.publish("late", [b""], pika.BasicProperties(headers={"of": "mine"}))
    running.instance.wait_for_line("^late 3 mine$")


def test_what_is_rejected_is_dead_at_once(running: Running) -> None:
    running.broker.publish("wrong", [b"1", b"2"])
    one, other = dead(running, "wrong", 2)
    assert one.headers["sengu-reason"] == other.headers["sengu-reason"] == "rejected"
    assert one.headers["sengu-error"] == "has no address"
    assert "sengu-error" not in other.headers


def test_what_is_requeued_comes_again_uncharged(running: Running) -> None:
    running.broker.publish("again", [b""], pika.BasicProperties(headers={"of": "mine"}))
    running.instance.wait_for_line("^again handles 1 mine$")
    assert told(running.instance, "again") == ["requeues 1", "handles 1 mine"]


def test_what_cannot_be_decoded_is_dead_with_the_reason(running: Running) -> None:
    running.broker.publish("json", [b"{", b'{"n": 5}'])
    (message,) = dead(running, "json")
    assert message.headers["sengu-reason"] == "undecodable"
    assert message.headers["sengu-error"].startswith("the body is not JSON: ")
    running.instance.wait_for_line("^json 5$")


def test_a_consumer_of_a_content_type_gets_nothing_else(running: Running) -> None:
    running.broker.publish("typed", [b"[1]", b"["])
    (message,) = dead(running, "typed")
    assert message.headers["sengu-reason"] == "undecodable"
    running.instance.wait_for_line(r"^typed application/json \[1\]$")


def test_without_ack_a_job_that_fails_is_not_tried_again(running: Running) -> None:
    running.broker.publish("auto", [b"1", b"2"])
    running.instance.wait_for_line("^auto 2$")
    running.instance.wait_for_line("auto: .*nobody cares; it is not tried again")
    assert told(running.instance, "auto") == ["1", "2"]
    assert running.broker.depth("auto.suspects") is None


def test_a_handler_that_returns_a_coroutine_has_failed(running: Running) -> None:
    running.broker.publish("coroutine", [b""])
    (message,) = dead(running, "coroutine")
    assert message.headers["sengu-error"].endswith("declare it with async def")


def test_middleware_is_around_the_handler_and_may_fail(running: Running) -> None:
    instance, broker = running
    broker.publish("wrapped", [b"good", b"skip", b"fails", b"bad"])
    first, second = dead(running, "wrapped", 2)
    assert first.headers["sengu-error"] == "ValueError: of the job"
    assert second.headers["sengu-error"] == "RuntimeError: of the middleware"
    bodies = ["good", "skip", "fails", "bad"]
    wait_until(lambda: len(told(instance, "measured")) == len(bodies), "what is told last")
    assert told(instance, "first") == [word for body in bodies for word in (body, "is done")]
    assert told(instance, "wrapped") == ["good", "fails"]
    assert told(instance, "reported") == [
        "wrapped ValueError('of the job') fails",
        "wrapped RuntimeError('of the middleware') bad",
    ]
    outcomes = ["done", "done", "failed", "failed"]
    assert told(instance, "measured") == [f"wrapped wrapped {one} 1" for one in outcomes]
    instance.wait_for_line("error reporter .* failed")
    instance.wait_for_line("metrics .* failed")


def test_middleware_of_a_coroutine_is_one(running: Running) -> None:
    running.broker.publish("wrapped.async", [b"1"])
    running.instance.wait_for_line("^wrapped.async 1$")
    assert told(running.instance, "around") == ["1"]
