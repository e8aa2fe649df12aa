"""The brokers of the tests themselves: shared or not, they end with those who started them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika.exceptions
import pytest

from tests import broker_host, processes
from tests.broker import Broker
from tests.broker_nodes import Node
from tests.system.puppets import wait_until

# Says the pid of its broker, and waits to be killed.
_OWNER = """
import signal
from tests import broker_nodes
with broker_nodes.node() as node:
    print(node.pid, node.directory, flush=True)
    signal.pause()
"""


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    processes.become_subreaper()
    known = processes.descendants()
    yield
    assert processes.kill_descendants(known) == set()


def test_a_broker_has_what_was_published_and_nobody_else_sees_it(broker: Broker) -> None:
    broker.declare("numbers", **{"x-queue-type": "quorum"})
    broker.publish_numbers("numbers", 3)
    assert broker.depth("numbers") == 3
    assert broker.depth("letters") is None
    assert [message.body for message in broker.take("numbers", 2)] == [b"0", b"1"]
    broker.purge("numbers")
    assert broker.depth("numbers") == 0
    broker.delete("numbers")
    assert broker.depth("numbers") is None
    assert broker.vhost in broker.ctl("list_vhosts")


def test_it_listens_on_loopback_only(own_broker: Node) -> None:
    shown = subprocess.run(
        ["ss", "-Hltnp"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    places = [line.split()[3] for line in shown.splitlines() if f"pid={own_broker.pid}," in line]
    assert len(places) == 3  # AMQP, management, other nodes
    assert all(place.startswith("127.0.0.1:") for place in places)


def test_what_a_node_had_is_there_after_its_death(own_broker: Node, nothing_is_left: None) -> None:
    own_broker.declare("numbers", **{"x-queue-type": "quorum"})
    own_broker.publish_numbers("numbers", 3)
    before = own_broker.pid
    own_broker.kill()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        own_broker.depth("numbers")
    own_broker.start()
    assert own_broker.pid != before
    assert [message.body for message in own_broker.take("numbers", 3)] == [b"0", b"1", b"2"]


def test_a_node_out_of_memory_blocks_who_publishes(own_broker: Node) -> None:
    own_broker.declare("numbers")
    with own_broker.channel() as channel:
        blocked: list[str] = []
        publisher = channel.connection.channel()
        connection = channel.connection
        connection.add_on_connection_blocked_callback(lambda *_: blocked.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: blocked.append("unblocked"))
        with own_broker.out_of_memory():

            def publish() -> list[str]:
                publisher.basic_publish("", "numbers", b"1")  # nobody waits for a confirmation
                connection.process_data_events(0.1)
                return blocked

            wait_until(publish, "blocked, once the connection has heard of the alarm")
            assert blocked == ["blocked"]
        connection.process_data_events(20.0)
        assert blocked == ["blocked", "unblocked"]


def test_a_broker_ends_with_its_owner_though_that_is_killed(nothing_is_left: None) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        below = processes.descendants_of(owner.pid)
        assert int(pid) in below
        owner.send_signal(signal.SIGKILL)
    assert processes.wait_gone(below, 20.0) == set()
    subprocess.run(["rm", "-r", Path(os.fsdecode(directory)).parent], check=True, timeout=20)


def test_hosts_reach_the_broker_and_nothing_else(broker: Broker, nothing_is_left: None) -> None:
    broker.declare("numbers")
    with broker_host.host(broker) as one, broker_host.host(broker) as other:
        for each in (one, other):
            subprocess.run(
                [*each.prefix, "amqp-publish", "-u", each.url, "-r", "numbers", "-b", "1"],
                check=True,
                timeout=20,
            )
            direct = [*each.prefix, "amqp-publish", "-u", broker.url, "-r", "numbers", "-b", "2"]
            assert subprocess.run(direct, capture_output=True, check=False, timeout=20).returncode
    assert [message.body for message in broker.take("numbers", 2)] == [b"1", b"1"]
