"""`sengu consume` while it lives: deploys, ends, jobs that do not come back, another version."""

import os
import signal
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.processes import SETTLE_SECONDS
from tests.support import Instance, Sengu
from tests.system.consuming import Consuming, Gate, pids, told
from tests.system.puppets import wait_until
from tests.system.test_upgrade import Installation

SLOW = """
@quick("jobs", prefetch=4, threads=2)
def handle(message):
    tell("begins", message.text(), os.getpid(), message.redelivered)
    pass_gate("gate")
    tell("ends", message.text(), os.getpid())
"""


@pytest.fixture
def consuming(broker: Broker, sengu: Sengu, free_path: Path) -> Consuming:
    return Consuming(sengu, broker, free_path)


@pytest.fixture
def gate(consuming: Consuming) -> Gate:
    return consuming.make_gate("gate")


def begins(instance: Instance, count: int) -> None:
    """So many jobs have begun."""
    after = 0
    for _ in range(count):
        line = instance.wait_for_line("^begins .*", after=after)[0]
        after = instance.lines.index(line, after) + 1


def test_a_deploy_lets_running_jobs_finish_and_gives_back_the_rest(
    consuming: Consuming, gate: Gate
) -> None:
    instance = consuming.run(SLOW)
    consuming.broker.publish_numbers("jobs", 8)
    begins(instance, 2)
    (old,) = pids(instance)
    instance.signal(signal.SIGHUP)
    # The new one is subscribed before the old one lets go of what it has not begun.
    begins(instance, 4)
    (new,) = {line.split()[1] for line in told(instance, "begins")} - {str(old)}
    instance.wait_for_line(rf"\(pid {old}\) is asked to stop by TERM: generation 2 serves instead")
    assert line_of(instance, f"(pid {new}) is ready") < line_of(instance, "generation 2 serves")
    wait_until(lambda: consuming.broker.depth("jobs") == 2)
    gate.open()
    for number in range(8):
        instance.wait_for_line(f"^ends {number} ")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")
    assert sorted(line.split()[0] for line in told(instance, "ends")) == list("01234567")
    assert len([line for line in told(instance, "ends") if line.endswith(str(old))]) == 2


def line_of(instance: Instance, text: str) -> int:
    return next(number for number, line in enumerate(instance.lines) if text in line)


def test_under_load_a_deploy_doubles_nothing(consuming: Consuming) -> None:
    source = """
    @quick("jobs", prefetch=20, threads=2)
    def handle(message):
        time.sleep(0.002)
        tell("ends", message.text())
    """
    instance = consuming.run(source, "-w", "2")
    consuming.broker.publish_numbers("jobs", 500)
    for _ in range(2):
        reload = instance.cli("reload")
        assert reload.returncode == 0, reload.stderr
    instance.wait_for_line("^ends 499$")
    assert instance.stop() == 0
    left = consuming.broker.depth("jobs")
    suspected = consuming.broker.depth("jobs.suspects")
    assert (left, suspected) == (0, 0)
    instance.output.join(SETTLE_SECONDS)
    assert sorted(map(int, told(instance, "ends"))) == list(range(500))


def test_at_the_end_running_jobs_finish(consuming: Consuming, gate: Gate) -> None:
    instance = consuming.run(SLOW)
    consuming.broker.publish_numbers("jobs", 6)
    begins(instance, 2)
    instance.signal(signal.SIGTERM)
    # What the process never had may be taken before it gives back what it had.
    given_back = consuming.broker.take("jobs", 4)
    assert sorted(message.body for message in given_back) == [b"2", b"3", b"4", b"5"]
    gate.open()
    assert instance.wait() == 0
    instance.output.join(SETTLE_SECONDS)
    assert len(told(instance, "ends")) == 2
    assert consuming.broker.depth("jobs") == 0


def test_the_server_is_killed_and_jobs_go_on(consuming: Consuming, gate: Gate) -> None:
    instance = consuming.run(SLOW)
    consuming.broker.publish_numbers("jobs", 3)
    begins(instance, 2)
    before = pids(instance)
    os.kill(instance.server_pid, signal.SIGKILL)
    gate.open()
    for number in range(3):
        instance.wait_for_line(f"^ends {number} ")
    assert pids(instance) == before
    assert len(told(instance, "begins")) == 3


STUCK = """
@quick("jobs", timeout=0.5, retries=1, backoff=[0.02])
def handle(message):
    if message.attempt == 1:
        pass_gate("never")
    tell("again", os.getpid(), message.headers["sengu-reason"])

@quick("siblings")
def sibling(message):
    tell("begins", message.text(), os.getpid())
    pass_gate("gate")
    tell("ends", message.text(), os.getpid())
"""


def test_a_job_that_is_stuck_is_tried_again_elsewhere_and_its_siblings_finish(
    consuming: Consuming, gate: Gate
) -> None:
    consuming.make_gate("never")
    instance = consuming.run(STUCK)
    (old,) = pids(instance)
    consuming.broker.publish("siblings", [b"1"])
    begins(instance, 1)
    consuming.broker.publish("jobs", [b""])
    instance.wait_for_line(r"jobs \w{8}: not done after 0.5 s, at:$")
    instance.wait_for_line(r"in pass_gate$")
    instance.wait_for_line(r"jobs: a message timed out: not done after 0.5 s; it is tried again in")
    instance.wait_for_line(rf"\(to replace pid {old}: a job is stuck\)")
    instance.wait_for_line(rf"\(pid {old}\) is asked to stop by TERM")
    instance.wait_for_line(r"^again \d+ timed out$")
    gate.open()
    instance.wait_for_line(f"^ends 1 {old}$")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")


ASYNC = """
@consumer("jobs", timeout=0.5, retries=0)
async def handle(message):
    tell("begins", message.text(), os.getpid())
    if message.body == b"blocks":
        pass_gate("never")
    while message.body == b"ignores":
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            tell("ignores it")
    try:
        await asyncio.sleep(600)
    finally:
        tell("cleans up")
"""


def dead_of_old_age(consuming: Consuming, body: bytes) -> str:
    """What is said of a job, whose stack is known."""
    consuming.broker.publish("jobs", [body])
    (message,) = consuming.broker.take("jobs.dead")
    assert (message.body, message.headers["sengu-reason"]) == (body, "timed out")
    assert "in handle" in message.headers["sengu-stack"]
    return str(message.headers["sengu-error"])


def test_a_coroutine_is_cancelled_when_its_time_is_up(consuming: Consuming) -> None:
    """If that does not end it, the process is replaced."""
    instance = consuming.run(ASYNC)
    (old,) = pids(instance)
    assert dead_of_old_age(consuming, b"waits") == "not done after 0.5 s"
    instance.wait_for_line("^cleans up$")
    assert pids(instance) == {old}
    assert dead_of_old_age(consuming, b"ignores").endswith("and it goes on when cancelled")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")


def test_a_coroutine_that_keeps_its_event_loop_busy_is_left_behind(consuming: Consuming) -> None:
    consuming.make_gate("never")
    instance = consuming.run(ASYNC)
    (old,) = pids(instance)
    assert dead_of_old_age(consuming, b"blocks").endswith("and it goes on when cancelled")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")


def test_another_version_goes_on_with_the_same_workers(consuming: Consuming, gate: Gate) -> None:
    installation = Installation(consuming.directory)
    consuming.environment = {**consuming.environment, **installation.environment}
    instance = consuming.run(SLOW)
    consuming.broker.publish_numbers("jobs", 1)
    begins(instance, 1)
    before = pids(instance)
    upgrade = instance.cli("upgrade")
    assert upgrade.returncode == 0, upgrade.stderr
    gate.open()
    instance.wait_for_line("^ends 0 ")
    assert pids(instance) == before


def test_who_is_the_only_one_that_may_consume_ends_when_its_jobs_are_done(
    consuming: Consuming,
) -> None:
    """The broker does not answer what is asked there before a channel closes: it closes it."""
    source = """
    @consumer("jobs", retries=0, arguments={"x-single-active-consumer": True})
    def handle(message):
        tell("done", message.text())
    """
    instance = consuming.run(source, "--grace", "600")
    consuming.broker.publish("jobs", [b"1"])
    instance.wait_for_line("^done 1$")
    assert instance.stop() == 0
    wait_until(lambda: consuming.broker.depth("jobs") == 0)
