"""`sengu consume` at its start: which consumers run where, and what stands in the way."""

import re
import socket
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.support import WAIT_SECONDS, Instance, Sengu
from tests.system.consuming import Consuming, told
from tests.system.puppets import wait_until, workers

EX_CONFIG = 78
TWO = """
@quick("ones")
def one(message):
    tell("one", message.text(), os.getpid())

@quick("others", threads=2)
def other(message):
    tell("other", message.text(), os.getpid())
"""


@pytest.fixture
def consuming(broker: Broker, sengu: Sengu, free_path: Path) -> Consuming:
    return Consuming(sengu, broker, free_path)


def test_only_those_that_are_named_run(consuming: Consuming) -> None:
    instance = consuming.run(TWO, "--only", "others")
    consuming.broker.publish("others", [b"1"])
    instance.wait_for_line("^other 1 ")
    assert consuming.broker.depth("ones") is None


def test_an_unknown_name_ends_it_with_a_guess(consuming: Consuming) -> None:
    consuming.write(TWO)
    instance = consuming.start("--only", "othres")
    instance.wait_for_line("there is no consumer othres; did you mean others[?]$")
    assert instance.wait() == 1


def test_processes_share_or_split_the_consumers(consuming: Consuming) -> None:
    instance = consuming.run(TWO, "-w", "2", "--split", "--broker", consuming.broker.url)
    for queue in ("ones", "others"):
        consuming.broker.publish_numbers(queue, 4)
    for name in ("one", "other"):
        for number in range(4):
            instance.wait_for_line(f"^{name} {number} ")
    by_pid = {name: {line.split()[1] for line in told(instance, name)} for name in ("one", "other")}
    assert len(by_pid["one"]) == len(by_pid["other"]) == 1
    assert by_pid["one"] != by_pid["other"]


def test_all_consumers_may_share_threads(consuming: Consuming) -> None:
    """With two for all of them, the jobs of two queues are what is done at a time."""
    script = """
    both = threading.Barrier(2)
    running = []

    def handle(message):
        running.append(message)
        tell("running", len(running), threading.active_count())
        both.wait()
        running.remove(message)

    a = quick("ones", threads=5)(lambda message: handle(message))
    b = quick("others", threads=5)(lambda message: handle(message))
    """
    instance = consuming.run(script, "--share-threads", "2")
    for queue in ("ones", "others"):
        consuming.broker.publish_numbers(queue, 2)
    wait_until(lambda: len(told(instance, "running")) == 4, "all of them")
    assert max(int(line.split()[0]) for line in told(instance, "running")) <= 2


def test_without_declaring_queues_are_taken_as_they_are(consuming: Consuming) -> None:
    consuming.broker.declare("ones", **{"x-queue-type": "classic", "x-max-length": 9})
    consuming.broker.declare("ones.dead")
    consuming.write(TWO)
    instance = consuming.start("--no-declare", "--only", "one")
    instance.wait_for_line("there is no queue 'ones.suspects'; its consumer makes it")
    consuming.broker.declare("ones.suspects")
    instance.wait_ready()
    consuming.broker.publish("ones", [b"1"])
    instance.wait_for_line("^one 1 ")


def test_a_queue_that_is_another_ends_it_with_what_to_do(consuming: Consuming) -> None:
    consuming.broker.declare("ones", **{"x-queue-type": "quorum"})
    consuming.write(TWO)
    instance = consuming.start("-w", "2")
    assert instance.wait() == EX_CONFIG
    line = r"ERROR .*queue 'ones' is there already, with .* and not .*, or delete the queue"
    instance.wait_for_line(line)
    assert not any("Traceback" in text for text in instance.lines)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ((":guest@", ":hunter2@"), "the password of 'guest', or the user, is wrong"),
        ((r"/test-\w+$", "/nowhere"), "there is no virtual host 'nowhere'"),
    ],
)
def test_wrong_credentials_end_it_at_once(
    consuming: Consuming, wrong: tuple[str, str], hint: str
) -> None:
    consuming.write(TWO)
    instance = consuming.start(url=re.sub(*wrong, consuming.broker.url))
    assert instance.wait() == EX_CONFIG
    instance.wait_for_line(hint)
    assert "hunter2" not in str(instance.output)


@pytest.fixture
def alone(sengu: Sengu, free_path: Path, port: int) -> Instance:
    """One whose broker is not there."""
    consuming = Consuming(sengu, Broker("", {}, port, 0), free_path)
    consuming.write(TWO)
    return consuming.start("--ready-timeout", "4")


def test_a_broker_that_is_not_there_is_waited_for(alone: Instance, port: int) -> None:
    """For longer than any worker has to be ready."""
    alone.wait_for_line(f"nothing listens at 127.0.0.1:{port}; start the broker")
    wait_until(lambda: "cannot reach broker" in (workers(alone)[0]["status"] or ""), "its status")
    assert re.search("not subscribed for .*: cannot reach broker", alone.cli("status").stdout)
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(WAIT_SECONDS)
        for _ in range(4):
            server.accept()[0].close()
    assert len([line for line in alone.lines if "started as pid" in line]) == 1
    assert alone.stop() == 0


def test_it_fails_when_it_shall_not_wait(sengu: Sengu, free_path: Path, port: int) -> None:
    consuming = Consuming(sengu, Broker("", {}, port, 0), free_path)
    consuming.write(TWO)
    instance = consuming.start("--connect-timeout", "3")
    instance.wait_for_line("sengu: error: not connected after 3 s: cannot reach broker")
    instance.stop()
