"""When the server sweeps up after runners, and how: without a process, and without waiting."""

import json
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from sengu.model import events as ev
from sengu.model.container import Container
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import (
    BootPolicy,
    ReadyByNotify,
    RestartPolicy,
    ServiceSpec,
    StopPolicy,
)
from sengu.planner.reduce import Fact
from sengu.server.children import Children, Exec, Guardian
from sengu.server.containers import Containers
from sengu.server.core import Turn
from sengu.server.stage import Stage

STOP = StopPolicy(15, 5.0)
SPEC = ServiceSpec(
    name="web",
    command=("podman", "run", "web"),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
    container=Container(("podman",), "web"),
)


class World:
    """Children that end when they are told to, a loop that lets them, and a stage without one."""

    null_fd = 0
    directory = None
    is_orphaned = False

    def __init__(self) -> None:
        self.guardians: dict[str, Guardian] = {}
        self.orders: list[bool] = []
        self.left: list[str] = []
        self.warnings: list[str] = []
        self.time = 0.0
        self.run_once: Callable[[float], None] = lambda _until: self.end_first()

    def spawn(self, key: str, order: Exec, guardian: Guardian) -> None:
        assert key not in self.guardians
        self.guardians[key] = guardian
        assert order.argv[-2] == "sweep"
        chore = json.loads(order.argv[-1])
        assert (chore["engine"], chore["service"]) == (["podman"], "web")
        self.orders.append(chore["now"])

    def names(self, prefix: str) -> list[str]:
        return [key for key in self.left if key.startswith(prefix)]

    def has(self, key: str) -> bool:
        return key in self.left

    def adopt(self, key: str, guardian: Guardian) -> None:
        self.left.remove(key)
        self.guardians[key] = guardian

    def reap(self, key: str) -> None:
        self.guardians.pop(key).gone()

    def now(self) -> float:
        return self.time

    def end_first(self) -> None:
        next(iter(self.guardians.values())).ended("exit status 0")

    def post(self, fact: Fact) -> None:
        raise AssertionError(fact)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make(world: World) -> Containers:
    port = cast("Any", world)
    return Containers(SPEC, port, cast("Children", world), cast("Stage", world), world)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def containers(world: World) -> Containers:
    """Those of a server that has swept up what others had left."""
    containers = make(world)
    ready(containers)
    world.end_first()
    world.orders.clear()
    return containers


def tell(containers: Containers, fact: Fact, *, is_news: bool = True, **worker: Any) -> None:
    known = Worker(
        id=1, generation=1, slot=0, pid=7, started_at=0.0, **{"phase": Phase.READY, **worker}
    )
    before = Observed(wanted=1, workers={1: known})
    containers.on_fact(Turn(fact, before, before, 0.0, is_news))


def ready(containers: Containers) -> None:
    tell(containers, ev.WorkerReady(1, "said READY=1"))


def exited(containers: Containers, how: str, phase: Phase = Phase.READY) -> None:
    tell(containers, ev.WorkerExited(1, how), phase=phase)


def test_what_others_have_left_goes_when_there_is_somebody_in_its_place(world: World) -> None:
    containers = make(world)
    assert world.orders == []
    ready(containers)
    ready(containers)
    assert world.orders == [False]


def test_a_container_without_a_runner_stays_until_another_is_ready(
    world: World, containers: Containers
) -> None:
    exited(containers, "signal KILL")
    assert world.orders == []
    ready(containers)
    assert world.orders == [False]


def test_or_until_the_other_has_failed(world: World, containers: Containers) -> None:
    exited(containers, "signal KILL")
    exited(containers, "exit status 125", Phase.STARTING)
    assert world.orders == [False]


@pytest.mark.parametrize(
    ("phase", "now"), [(Phase.KILLED, True), (Phase.STOPPING, False), (Phase.DRAINING, False)]
)
def test_one_that_was_to_stop_is_not_waited_for(
    world: World, containers: Containers, phase: Phase, now: bool
) -> None:
    exited(containers, "signal KILL", phase)
    assert world.orders == [now]


def test_who_has_stopped_by_itself_has_left_nothing(world: World, containers: Containers) -> None:
    exited(containers, "exit status 0", Phase.STOPPING)
    containers.finish()
    assert world.orders == []


def test_sweeps_of_a_kind_come_one_after_the_other(world: World, containers: Containers) -> None:
    for _ in range(3):
        exited(containers, "signal KILL", Phase.KILLED)
    assert world.orders == [True]
    world.end_first()
    assert world.orders == [True, True]
    world.end_first()
    assert world.orders == [True, True]


def test_what_is_to_go_at_once_does_not_wait_for_who_is_asked(
    world: World, containers: Containers
) -> None:
    exited(containers, "signal KILL", Phase.STOPPING)
    exited(containers, "signal KILL", Phase.KILLED)
    assert world.orders == [False, True]


def test_the_end_of_the_service_waits_for_all_sweeps(world: World, containers: Containers) -> None:
    exited(containers, "signal KILL")
    ready(containers)
    containers.finish()
    assert world.orders == [False, True]
    assert world.guardians == {}
    assert world.warnings == []


def test_the_end_does_not_wait_for_ever(world: World, containers: Containers) -> None:
    def wait(until: float) -> None:
        world.time = until

    world.run_once = wait
    exited(containers, "signal KILL", Phase.KILLED)
    containers.finish()
    assert world.warnings == ["podman does not answer; containers may be left: podman ps"]


def test_without_a_supervisor_nothing_is_begun(world: World, containers: Containers) -> None:
    world.is_orphaned = True
    exited(containers, "signal KILL", Phase.KILLED)
    containers.finish()
    assert world.orders == []


def test_a_new_server_lets_sweeps_end_and_sweeps_once_more(world: World) -> None:
    world.left = ["sweep/5/1", "worker/3"]
    containers = make(world)
    assert list(world.guardians) == ["sweep/5/1"]
    tell(containers, ev.WorkerExited(1, "signal KILL"), is_news=False)
    assert world.orders == []
    tell(containers, ev.ServerAdopted(8, 1, 0, 0, 0))
    assert world.orders == []
    world.end_first()
    assert world.orders == [False]
    containers.finish()
    assert world.orders == [False, True]


def test_a_sweep_that_cannot_be_started_is_told(
    world: World, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_key: str, _order: Exec, _guardian: Guardian) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(world, "spawn", refuse)
    exited(containers, "signal KILL", Phase.KILLED)
    assert world.warnings == ["cannot look for containers without a runner: Too many open files"]
    containers.finish()


def test_a_service_without_containers_is_left_alone(world: World) -> None:
    plain = msgspec.structs.replace(SPEC, container=None)
    port = cast("Any", world)
    containers = Containers(plain, port, port, port, world)
    ready(containers)
    exited(containers, "signal KILL", Phase.KILLED)
    containers.finish()
    assert world.orders == []
