"""`sengu queues` and `sengu dead`, with a real RabbitMQ and its management plugin."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from tests import processes
from tests.broker import Broker
from tests.support import PROGRAM, environment, run_cli
from tests.system.puppets import wait_until

MODULE = """
from sengu.consumers import consumer

print("imported")

@consumer("downloads", retries=2, retry_delay=30)
def handle(message):
    pass
"""
DEATH: dict[str, Any] = {
    "sengu-reason": "failed",
    "sengu-error": "ValueError: no \x1b[31murl",
    "sengu-stack": "Traceback (most recent call last):\n  File a.py\nValueError",
    "sengu-failures": 6,
    "sengu-moved-at": 1790000100,
    "sengu-exchange": "news",
    "sengu-routing-key": "eu.fr",
}


@pytest.fixture
def queues(broker: Broker) -> Broker:
    """There is what a consumer of downloads makes, and nothing in it."""
    for name in ("", ".retry.10s", ".retry.60s", ".suspects", ".dead"):
        broker.declare(f"downloads{name}", **{"x-queue-type": "quorum"})
    return broker


Done = subprocess.CompletedProcess[str]


def ask(broker: Broker, *args: str, cwd: Path | None = None) -> Done:
    return run_cli(args, environment({"SENGU_BROKER": broker.url}), cwd)


def rows(broker: Broker, *args: str) -> list[Any]:
    done = ask(broker, *args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[Any] = json.loads(done.stdout)
    return found


def die(broker: Broker, count: int) -> None:
    """So many messages are dead, with ids from m1 on."""
    with closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
        channel = connection.channel()  # without confirms, which take milliseconds each
        for number in range(1, count + 1):
            properties = pika.BasicProperties(
                message_id=f"m{number}", timestamp=1790000000, headers=DEATH, delivery_mode=2
            )
            body = json.dumps({"number": number}).encode()
            channel.basic_publish("", "downloads.dead", body, properties)
        wait_until(lambda: broker.depth("downloads.dead") == count)


def ids(broker: Broker, queue: str) -> list[str]:
    found: list[str] = []
    while count := broker.depth(queue):
        found += [str(one.properties.message_id) for one in broker.take(queue, count)]
    return found


@contextmanager
def consuming(broker: Broker, name: str) -> Iterator[None]:
    """A consumer of downloads on a connection of this name, which acknowledges nothing."""
    parameters = pika.URLParameters(broker.url)
    parameters.client_properties = {"connection_name": name}
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("downloads", lambda *_message: None)
    yield
    connection.close()


# sengu queues


def test_all_queues_of_consumers_are_shown_with_who_consumes_them(queues: Broker) -> None:
    queues.declare("another")
    queues.publish_numbers("downloads", 5)
    queues.publish_numbers("downloads.retry.10s", 2)
    queues.publish_numbers("downloads.retry.60s", 1)
    die(queues, 4)

    def shown() -> Any:
        (row,) = rows(queues, "queues", "--management", queues.management_url)
        return row

    with (
        consuming(queues, "jobs 3/0 (pid 7)"),
        consuming(queues, "jobs 2/1 (pid 5)"),
        consuming(queues, "mine"),
    ):
        # The management plugin looks every few seconds.
        wait_until(lambda: shown()["unacked"] == 3 and len(shown()["generations"]) == 2)
        row = shown()
        done = ask(queues, "queues", "--management", queues.management_url)
    assert (row["queue"], row["ready"], row["unacked"]) == ("downloads", 2, 3)
    assert (row["retries"], row["suspects"], row["dead"], row["consumers"]) == (3, 0, 4, 3)
    assert row["generations"] == [
        {"service": "jobs", "generation": 3, "consumers": 1},
        {"service": "jobs", "generation": 2, "consumers": 1},
    ]
    heading, line = done.stdout.splitlines()
    assert heading.split()[:3] == ["QUEUE", "READY", "UNACKED"]
    assert line.endswith("jobs generation 3: 1, generation 2: 1, others: 1")
    assert "guest" not in done.stdout + done.stderr


def test_without_the_management_plugin_what_amqp_tells_is_shown(queues: Broker, port: int) -> None:
    queues.publish_numbers("downloads", 5)
    nobody = f"http://127.0.0.1:{port}"
    done = ask(queues, "queues", "downloads")
    assert (done.returncode, done.stdout.splitlines()[1].split()) == (
        0,
        ["downloads", "5", "-", "-", "-", "-", "0", "0", "0"],
    )
    assert "rabbitmq-plugins enable rabbitmq_management" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    all_of_them, insisted = ask(queues, "queues"), ask(queues, "queues", "--management", nobody)
    assert (all_of_them.returncode, insisted.returncode) == (1, 1)
    assert "name queues, or give --module" in all_of_them.stderr
    assert nobody in insisted.stderr


def test_a_module_tells_its_queues_also_those_that_are_not_there(
    queues: Broker, tmp_path: Path
) -> None:
    (tmp_path / "jobs.py").write_text(MODULE)
    queues.declare("downloads.retry.30s")
    queues.publish_numbers("downloads.retry.30s", 2)
    done = ask(queues, "queues", "--module", "jobs", "--json", cwd=tmp_path)
    (row,) = json.loads(done.stdout)
    assert (row["queue"], row["ready"], row["retries"]) == ("downloads", 0, 2)
    queues.delete("downloads")
    done = ask(queues, "queues", "--module", "jobs", cwd=tmp_path)
    assert done.returncode == 0
    assert "there is no queue 'downloads'" in done.stderr


def test_watched_at_a_terminal_the_table_is_kept_current(queues: Broker) -> None:
    ours, theirs = pty.openpty()
    env = environment({"SENGU_BROKER": queues.url, "COLUMNS": "120", "TERM": "xterm"})
    watcher = subprocess.Popen(
        [*PROGRAM, "queues", "downloads", "--watch", "0.1"],
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    processes.keep(watcher)
    os.close(theirs)
    read_until(ours, b"downloads")
    queues.publish_numbers("downloads", 4321)
    read_until(ours, b"4321")
    queues.close_connections()
    read_until(ours, b"closed by a test")
    read_until(ours, b"4321")
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(20) == 130
    os.close(ours)


def read_until(terminal: int, word: bytes) -> None:
    seen = b""
    while word not in seen:
        seen += os.read(terminal, 1 << 16)


@pytest.mark.parametrize("verb", [("queues",), ("dead", "list")], ids=" ".join)
def test_a_wrong_name_is_told_with_what_could_be_meant(
    queues: Broker, verb: tuple[str, ...]
) -> None:
    done = ask(queues, *verb, "downlods", "--management", queues.management_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no queue 'downlods'; did you mean downloads?" in done.stderr


def test_an_api_that_refuses_the_user_is_told_without_the_password(queues: Broker) -> None:
    url = queues.management_url.replace("guest:guest@", "guest:sesame@")
    done = ask(queues, "queues", "--management", url)
    assert done.returncode == 1
    assert "refuses user 'guest'" in done.stderr
    assert "sesame" not in done.stderr


# sengu dead


def test_dead_messages_are_listed_and_stay_where_they_are(queues: Broker) -> None:
    die(queues, 7)
    done = ask(queues, "dead", "list", "downloads", "--limit", "3")
    heading, first, *_, more = done.stdout.splitlines()
    assert heading.split() == ["N", "DIED", "REASON", "FAILURES", "ID", "ERROR", "BODY"]
    assert "failed" in first
    assert '{"number": 1}' in first
    assert "\x1b" not in done.stdout
    assert more == "4 more; --limit 7 lists them too"
    found = rows(queues, "dead", "list", "downloads.dead")
    assert [one["id"] for one in found] == [f"m{number}" for number in range(1, 8)]
    assert (found[0]["exchange"], found[0]["routing_key"]) == ("news", "eu.fr")
    assert (found[0]["published"], found[0]["died"]) == (1790000000, 1790000100)


def test_a_dead_message_is_shown_with_its_stack(queues: Broker) -> None:
    die(queues, 3)
    done = ask(queues, "dead", "show", "downloads", "m2")
    for words in ("number        2", "  File a.py", "eu.fr", '{"number": 2}'):
        assert words in done.stdout
    done = ask(queues, "dead", "show", "downloads", "2", "--json")
    whole = json.loads(done.stdout)
    assert (whole["id"], whole["stack"]) == ("m2", DEATH["sengu-stack"])
    done = ask(queues, "dead", "show", "downloads", "4")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no dead message of downloads is 4; there are 3" in done.stderr


def test_those_that_are_named_are_sent_back_and_dropped(queues: Broker) -> None:
    die(queues, 6)
    done = ask(queues, "dead", "retry", "downloads", "2", "m5")
    assert done.stdout == "2 messages sent back to downloads\n"
    done = ask(queues, "dead", "drop", "downloads", "1", "id:m4", "--yes")
    assert done.stdout == "2 messages dropped\n"
    assert ids(queues, "downloads") == ["m2", "m5"]
    assert ids(queues, "downloads.dead") == ["m3", "m6"]


def test_all_are_sent_back_or_dropped(queues: Broker) -> None:
    die(queues, 70)
    assert ask(queues, "dead", "retry", "downloads", "--all").returncode == 0
    assert (queues.depth("downloads"), queues.depth("downloads.dead")) == (70, 0)
    assert queues.take("downloads")[0].headers["sengu-exchange"] == "news"
    die(queues, 450)
    assert ask(queues, "dead", "drop", "downloads", "--all", "-y").returncode == 0
    assert (queues.depth("downloads"), queues.depth("downloads.dead")) == (69, 0)
    done = ask(queues, "dead", "list", "downloads")
    assert done.stdout == "no message of downloads is dead\n"


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 2), (b"y\n", 0), (b"\x04", 2)])
def test_at_a_terminal_one_is_asked_before(queues: Broker, answer: bytes, left: int) -> None:
    die(queues, 2)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "dead", "drop", "downloads", "1", "2"],
        env=environment({"SENGU_BROKER": queues.url}),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    ) as asking:
        os.close(theirs)
        read_until(ours, b"drop 2 messages of downloads for good?")
        os.write(ours, answer)
        assert (asking.wait(20) == 0) is not bool(left)
    os.close(ours)
    wait_until(lambda: queues.depth("downloads.dead") == left)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_who_is_killed_while_sending_back_loses_nothing(
    queues: Broker, number: signal.Signals
) -> None:
    die(queues, 5000)  # more than are sent back before it is killed
    with subprocess.Popen(
        [*PROGRAM, "dead", "retry", "downloads", "--all"],
        env=environment({"SENGU_BROKER": queues.url}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as sender:
        wait_until(lambda: (queues.depth("downloads") or 0) > 50)
        sender.send_signal(number)
        assert sender.wait(20) != 0

    def is_settled() -> bool:
        depths = [queues.depth(name) or 0 for name in ("downloads", "downloads.dead")]
        return sum(depths) >= 5000

    wait_until(is_settled)
    again, left = ids(queues, "downloads"), ids(queues, "downloads.dead")
    assert {*again, *left} == {f"m{number}" for number in range(1, 5001)}
    assert left
    assert len(set(again)) == len(again)
