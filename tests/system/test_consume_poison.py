"""Messages that kill their workers: how many die, what is known of it, and who is not harmed."""

import os
import signal
from pathlib import Path

import pytest

from tests.broker import Broker, Taken
from tests.support import Instance, Sengu
from tests.system.consuming import Consuming, told
from tests.system.puppets import wait_until

SCRIPT = """
@consumer("jobs", retries={retries}, backoff=[0.02], type="{type}", prefetch=8)
def handle(message):
    if message.body.startswith(b"bad"):
        tell("bad", os.getpid())
        {death}
    tell("good", message.text())
"""
DEATHS = {
    "signal SEGV": "ctypes.string_at(0)",
    "exit status 3": "os._exit(3)",
    "signal KILL": "signal.pause()",
}
# Of a message that is tried again twice: it is two deaths before it is known to be the one.
DEATHS_BY_TYPE = {"quorum": 4, "classic": 3}
NEIGHBOURS = [str(number).encode() for number in range(6)]


@pytest.fixture
def consuming(broker: Broker, sengu: Sengu, free_path: Path) -> Consuming:
    return Consuming(sengu, broker, free_path)


def run(consuming: Consuming, type_: str, how: str, retries: int, *options: str) -> Instance:
    source = SCRIPT.format(type=type_, death=DEATHS.get(how, how), retries=retries)
    return consuming.run(source, *options)


def dead(consuming: Consuming) -> Taken:
    (message,) = consuming.broker.take("jobs.dead", timeout=60)
    return message


@pytest.mark.parametrize(
    ("how", "type_"), [*((how, "quorum") for how in DEATHS), ("signal SEGV", "classic")]
)
def test_a_poisonous_message_is_dead_after_its_retries_and_its_neighbours_are_handled(
    consuming: Consuming, type_: str, how: str
) -> None:
    instance = run(consuming, type_, how, 2)
    consuming.broker.publish("jobs", [*NEIGHBOURS[:3], b"bad", *NEIGHBOURS[3:]])
    if how == "signal KILL":  # as the kernel does that has no memory left
        kill_each(instance)
    message = dead(consuming)
    assert message.body == b"bad"
    assert message.headers["sengu-reason"] == "killed its worker"
    assert message.headers["sengu-error"] == f"a worker died with it: {how}"
    assert ("in handle" in message.headers.get("sengu-stack", "")) is (how == "signal SEGV")
    deaths = DEATHS_BY_TYPE[type_]
    wait_until(lambda: len(told(instance, "bad")) >= deaths)
    assert message.headers["sengu-failures"] == len(told(instance, "bad")) == deaths
    for body in NEIGHBOURS:
        instance.wait_for_line(f"^good {body.decode()}$")
    assert consuming.broker.depth("jobs.dead") == 0


def kill_each(instance: Instance) -> None:
    after = 0
    for _ in range(4):
        pid = int(instance.wait_for_line(r"^bad (\d+)$", after=after)[1])
        after = instance.lines.index(f"bad {pid}") + 1
        os.kill(pid, signal.SIGKILL)


def test_what_holds_the_interpreter_is_killed_and_charged(consuming: Consuming) -> None:
    """Nothing of its process runs any more, so that only the server can end it."""
    call = "ctypes.PyDLL(None).sleep(600)"
    instance = run(consuming, "quorum", call, 0, "--heartbeat-timeout", "2")
    consuming.broker.publish("jobs", [b"bad", b"1"])
    message = dead(consuming)
    assert message.headers["sengu-reason"] == "killed its worker"
    assert message.headers["sengu-error"].startswith("a worker died with it: killed: ")
    assert "in handle" in message.headers["sengu-stack"]
    instance.wait_for_line("^good 1$")


def test_a_poisonous_message_harms_no_message_of_another_consumer(consuming: Consuming) -> None:
    """Suspects run alone in their process, whichever consumer they are of."""
    source = """
    def act(message):
        if message.body.startswith(b"bad"):
            os._exit(3)
        tell("good", message.queue, message.text())

    @consumer("one", retries=0)
    def one(message):
        act(message)

    @consumer("two", retries=0)
    async def two(message):
        act(message)
    """
    instance = consuming.run(source, "--interval", "0.02")
    for queue in ("one", "two"):
        consuming.broker.publish(queue, [*NEIGHBOURS[:3], b"bad", *NEIGHBOURS[3:]])
    for queue in ("one", "two"):
        (message,) = consuming.broker.take(f"{queue}.dead", timeout=60)
        assert message.body == b"bad"
        for body in NEIGHBOURS:
            instance.wait_for_line(f"^good {queue} {body.decode()}$")
        assert consuming.broker.depth(f"{queue}.dead") == 0


def test_several_poisonous_messages_are_told_apart(consuming: Consuming) -> None:
    run(consuming, "quorum", "os._exit(3)", 1, "--interval", "0.02")
    consuming.broker.publish("jobs", [b"bad 1", *NEIGHBOURS, b"bad 2"])
    messages = consuming.broker.take("jobs.dead", 2, timeout=60)
    assert {message.body for message in messages} == {b"bad 1", b"bad 2"}
    assert consuming.broker.depth("jobs.dead") == 0


def test_a_worker_that_is_killed_once_costs_nobody_anything(consuming: Consuming) -> None:
    source = """
    @consumer("jobs", retries=1, backoff=[0.02])
    def handle(message):
        tell("has", message.text(), os.getpid(), message.attempt)
        if not message.redelivered:
            signal.pause()
    """
    instance = consuming.run(source)
    consuming.broker.publish("jobs", NEIGHBOURS)
    pid = int(instance.wait_for_line(r"^has 0 (\d+) 1$")[1])
    os.kill(pid, signal.SIGKILL)
    for body in NEIGHBOURS:
        instance.wait_for_line(rf"^has {body.decode()} (?!{pid})\d+ 1$")
