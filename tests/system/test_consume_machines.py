"""Consumers on several machines, and brokers on several: what one of them loses, others do."""

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import broker_host
from tests.broker import Broker
from tests.broker_host import Host
from tests.broker_nodes import Node
from tests.chaos.tree import below
from tests.queue_chaos.publishing import Publishing
from tests.queue_chaos.record import Record, missing
from tests.queue_chaos.scenario import start
from tests.support import Instance, Sengu
from tests.system.puppets import kill, wait_until

_MESSAGES = 4000
_QUEUES = ("numbers", "numbers.retry.500ms", "numbers.suspects", "numbers.dead")


@pytest.fixture
def record(free_path: Path) -> Iterator[Record]:
    record = Record(free_path / "record")
    yield record
    record.close()


def wait_done(record: Record, count: int) -> None:
    """Until so many numbers were handled, however long that takes while ever more are."""

    def is_another_done(before: int) -> bool:
        record.read()
        return len(record.done) > before

    while (done := len(record.done)) < count:
        wait_until(functools.partial(is_another_done, done), f"{count} are handled")


def test_nothing_is_lost_when_a_node_of_the_cluster_dies_and_comes_back(
    sengu: Sengu, cluster: tuple[Node, ...], record: Record
) -> None:
    first, *others = cluster
    env = {"SENGU_BROKER": ",".join(node.url for node in cluster), "RECORD": str(record.path)}
    instance = start(sengu, 2, env)
    with Publishing(env, _MESSAGES):
        wait_done(record, _MESSAGES // 4)
        first.kill()
        wait_done(record, _MESSAGES // 2)
        first.start()
        wait_done(record, _MESSAGES)
    # One may be there a second time, to be tried again or as a suspect.
    wait_until(lambda: [others[0].depth(queue) for queue in _QUEUES] == [0] * 4)
    assert instance.stop() == 0
    assert missing(record, _MESSAGES) == []


def test_hosts_share_the_work_and_one_takes_over_that_of_another(
    sengu: Sengu, broker: Broker, record: Record
) -> None:
    env = {"SENGU_BROKER": broker.url, "RECORD": str(record.path)}
    with broker_host.host(broker) as one, broker_host.host(broker) as other:
        first, second = (
            start(
                sengu,
                2,
                {**env, "SENGU_BROKER": host.url},
                *("--amqp-heartbeat", "2"),
                prefix=host.prefix,
            )
            for host in (one, other)
        )
        with Publishing(env, _MESSAGES):
            wait_done(record, _MESSAGES // 2)
            shares = [handled_by(record, instance) for instance in (first, second)]
            cut_off(one, first)
            wait_done(record, _MESSAGES)
        os.kill(one.pid, signal.SIGCONT)
        wait_until(lambda: [broker.depth(queue) for queue in _QUEUES] == [0] * 4)
        assert second.stop() == 0
    assert min(shares) > _MESSAGES // 8
    assert missing(record, _MESSAGES) == []


def handled_by(record: Record, instance: Instance) -> int:
    workers = {worker["pid"] for worker in instance.status()["workers"]}
    return sum(job.pid in workers for job in record.jobs)


def cut_off(host: Host, instance: Instance) -> None:
    """As if its power failed: the broker is not told."""
    os.kill(host.pid, signal.SIGSTOP)
    for process in below(instance.pid):
        kill(process.pid)
    kill(instance.pid)
