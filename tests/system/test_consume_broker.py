"""`sengu consume` when the broker is in trouble: lost, closing, out of memory, without a queue."""

from pathlib import Path

import pytest

from tests.broker_nodes import Node
from tests.support import Instance, Sengu
from tests.system.consuming import Consuming, pids, told
from tests.system.puppets import last_event, of_type, wait_until

SCRIPT = """
@consumer("jobs", type="{type}", prefetch=4, retries=1, backoff=[0.02])
def handle(message):
    if message.body == b"held":
        tell("holds", os.getpid())
        pass_gate("gate")
    if message.body == b"fails" and message.attempt == 1:
        tell("fails")
        raise ValueError
    tell("has", message.text(), message.attempt)

@quick("others")
def other(message):
    tell("other", message.text())
    pass_gate("gate")
    tell("other ends", message.text())
"""


@pytest.fixture
def consuming(own_broker: Node, sengu: Sengu, free_path: Path) -> Consuming:
    consuming = Consuming(sengu, own_broker, free_path)
    consuming.write(SCRIPT.format(type="classic"))
    return consuming


def test_a_connection_that_is_closed_is_made_anew(consuming: Consuming, own_broker: Node) -> None:
    gate = consuming.make_gate("gate")
    instance = consuming.start("-w", "2").wait_ready()
    before = pids(instance)
    own_broker.publish("others", [b"1"])
    instance.wait_for_line("^other 1$")
    own_broker.close_connections("tested")
    for pid in before:
        instance.wait_for_line(rf"1/\d {pid}\] broker .* has closed the connection: .*tested")
        instance.wait_for_line(rf"1/\d {pid}\] subscribed again$")
    gate.open()
    instance.wait_for_line("^other ends 1$")
    own_broker.publish("jobs", [b"1"])
    instance.wait_for_line("^has 1 1$")
    assert pids(instance) == before


def test_a_broker_that_is_restarted_is_waited_for_as_long_as_that_may_take(
    consuming: Consuming, own_broker: Node
) -> None:
    """Who has waited for longer is replaced by one that waits."""
    consuming.write(SCRIPT.format(type="quorum"))
    instance = consuming.start("--subscription-timeout", "90").wait_ready()
    impatient = consuming.start("--subscription-timeout", "1", "--only", "others").wait_ready()
    before, (old,) = pids(instance), pids(impatient)
    own_broker.kill()
    instance.wait_for_line("nothing listens at")
    assert "not subscribed for" in instance.cli("status").stdout
    # What it told last: that it has lost the broker, or that it does not find it again.
    reason = "(cannot reach|the connection to) broker"
    impatient.wait_for_line(rf"sengu: error: not subscribed for \d+ s: {reason}")
    impatient.wait_for_line(rf"\(pid {old}\) exited with exit status 1, unexpectedly")
    impatient.wait_for_line(rf"\[1/0 (?!{old}\])\d+\] cannot reach broker")
    last = last_event(impatient)
    own_broker.start()
    # Between two tries a worker waits for up to 15 s.
    instance.wait_for_line("subscribed again$", timeout=60)
    impatient.wait_event(of_type("worker_ready"), timeout=60, since=last)
    wait_until(lambda: {status(instance), status(impatient)} == {"subscribed"})
    own_broker.publish("jobs", [b"1"])
    instance.wait_for_line("^has 1 1$")
    assert pids(instance) == before


def status(instance: Instance) -> str:
    return str(instance.status()["workers"][0]["status"])


def test_a_queue_that_is_deleted_is_made_again_and_jobs_of_others_are_left_alone(
    consuming: Consuming, own_broker: Node
) -> None:
    gate = consuming.make_gate("gate")
    instance = consuming.start().wait_ready()
    own_broker.publish("others", [b"1"])
    instance.wait_for_line("^other 1$")
    own_broker.delete("jobs")
    instance.wait_for_line("queue 'jobs' was deleted; it is made anew$")
    instance.wait_for_line("subscribed again$")
    before = len(instance.lines)
    own_broker.delete("jobs.suspects")
    instance.wait_for_line("there is no queue 'jobs.suspects'", after=before)
    instance.wait_for_line("subscribed again$", after=before)
    own_broker.publish("jobs", [b"1"])
    instance.wait_for_line("^has 1 1$")
    gate.open()
    instance.wait_for_line("^other ends 1$")
    assert told(instance, "other") == ["1", "ends 1"]


def test_a_retry_waits_until_the_broker_has_memory_again(
    consuming: Consuming, own_broker: Node
) -> None:
    gate = consuming.make_gate("gate")
    instance = consuming.start().wait_ready()
    own_broker.publish("jobs", [b"fails"])
    instance.wait_for_line("^has fails 2$")
    own_broker.publish("jobs", [b"held", b"fails"])
    instance.wait_for_line("^holds")
    with own_broker.out_of_memory():
        gate.open()
        instance.wait_for_line("the broker takes no messages for now: low on memory")
        instance.wait_for_line("^has held 1$")
    instance.wait_for_line("the broker takes messages again$")
    instance.wait_for_line("^has fails 2$", after=instance.lines.index("has held 1"))
    assert len([line for line in instance.lines if line == "fails"]) == 2
