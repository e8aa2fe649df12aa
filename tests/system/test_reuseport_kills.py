"""A server killed at any step of what `--reuseport` adds: the sockets of slots, and draining.

As `test_kill_at_every_step`, of which this is a part.
"""

import pytest

from tests.chaos.orders import ask
from tests.support import Instance, Sengu
from tests.system.puppets import wait_until
from tests.system.test_kill_at_every_step import Run, both, check, finish, settled
from tests.system.test_reuseport import scale, wait_for_sockets
from tests.system.web import Site
from tests.system.web import ask as ask_web

START = [
    "before open a slot -",
    "after open a slot -",
    "after send hold=listener/0/0",
    "after send hold=listener/0/1",
    "after order a worker -",
]
DEPLOY = [
    "after execute DrainWorker",
    "after record WorkerDraining 2",
    "before record WorkerDrained",
    "after record WorkerDrained",
    "after record WorkerDrained 2",
]
SCALE_DOWN = [
    "after execute DrainWorker",
    "after record WorkerDraining",
    "before record WorkerDrained",
    "after record WorkerDrained",
    "after execute StopWorker",
    "before hear of an exit -",
    "after record WorkerExited",
    "before close a slot -",
    "after close a slot -",
    "after send drop=listener/0/1",
]


def port_of(instance: Instance) -> int:
    (listener,) = instance.status()["listeners"]
    return int(listener["address"].rpartition(":")[2])


def check_slots(instance: Instance, count: int) -> None:
    """Each has a socket, and gets clients."""
    port = port_of(instance)
    wait_for_sockets(port, count)
    assert {ask_web(port).slot for _ in range(60)} == set(range(count))


@pytest.mark.parametrize("step", START)
def test_when_sockets_are_opened(sengu: Sengu, site: Site, step: str) -> None:
    run = Run(sengu, site, step)
    run.arm()
    instance = run.start("", "--reuseport").wait_ready()
    settled(instance, 1, 2)
    assert run.was_reached()
    check_slots(instance, 2)
    finish(run, instance)


@pytest.mark.parametrize("step", DEPLOY)
def test_when_old_workers_are_drained(sengu: Sengu, site: Site, step: str) -> None:
    run = Run(sengu, site, step)
    instance = run.start("", "--reuseport").wait_ready()
    run.arm()
    assert ask(instance, "POST", "/v1/reload", {"token": "one"}).status == 202
    wait_until(run.was_reached)
    settled(instance, 2, 2)
    check_slots(instance, 2)
    check(run, instance, 2, both(1) | both(2))


@pytest.mark.parametrize("step", SCALE_DOWN)
def test_when_a_slot_is_given_up(sengu: Sengu, site: Site, step: str) -> None:
    run = Run(sengu, site, step)
    instance = run.start("", "--reuseport").wait_ready()
    run.arm()
    assert ask(instance, "POST", "/v1/scale", {"workers": 1}).status == 202
    wait_until(run.was_reached)
    settled(instance, 1, 1)
    check_slots(instance, 1)
    scale(instance, 3)
    check_slots(instance, 3)
    finish(run, instance)
