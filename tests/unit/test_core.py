"""The core by itself: what is on record when, and what it does with many actions at a time."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from sengu.model import events as ev
from sengu.model.actions import AnyAction, PrepareGeneration, StartWorker
from sengu.model.service import (
    BootPolicy,
    Pacing,
    ReadyByNotify,
    RestartPolicy,
    ServiceSpec,
    StopPolicy,
)
from sengu.planner.reduce import Fact
from sengu.server.core import Core, Turn

WORKERS = 230
STOP = StopPolicy(15, 30.0)
SPEC = ServiceSpec(
    name="many",
    command=("server",),
    workers=WORKERS,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
)


class Hands:
    """Starts nothing, says that it did."""

    def __init__(self) -> None:
        self.started = 0

    def execute(self, action: AnyAction) -> Fact:
        if isinstance(action, PrepareGeneration):
            return ev.GenerationPrepared(action.generation, Pacing())
        assert isinstance(action, StartWorker)
        self.started += 1
        return ev.WorkerRequested(action.worker, action.generation, action.slot, action.reason)


class Record:
    """Remembers what was written down."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def write(self, fact: Fact, at: float, wall: float) -> None:
        assert (at, wall > 0) == (7.0, True)
        self.facts.append(fact)


def now() -> float:
    return 7.0


def test_signals_and_clients_are_heard_while_hundreds_of_workers_are_started() -> None:
    core, hands = Core(SPEC, now, Record()), Hands()
    core.post(ev.DeployRequested("start"))
    rounds = 0
    while hands.started < WORKERS:
        before = hands.started
        core.settle(hands)
        assert before < hands.started <= before + 100
        rounds += 1
        assert core.wake_at == 7.0 or hands.started == WORKERS
    assert rounds > 2
    core.settle(hands)
    assert {worker.slot for worker in core.observed.workers.values()} == set(range(WORKERS))
    assert core.wake_at == 67.0


def test_a_fact_is_on_record_before_anything_follows_from_it() -> None:
    record = Record()
    core = Core(SPEC, now, record)
    before = core.observed
    followed: list[tuple[Fact, list[Fact]]] = []
    core.on_fact(lambda turn: followed.append((turn.fact, list(record.facts))))
    first, second = ev.DeployRequested("one"), ev.DeployRequested("two")
    core.post(first)
    assert (record.facts, core.observed) == ([first], before)
    core.take(second)
    assert followed == [(first, [first, second]), (second, [first, second])]


def test_what_could_not_be_written_down_has_no_consequences() -> None:
    class Full:
        def write(self, _fact: Fact, _at: float, _wall: float) -> None:
            raise OSError(28, "No space left on device")

    core, hands = Core(SPEC, now, Full()), Hands()
    with pytest.raises(OSError, match="No space left"):
        core.post(ev.DeployRequested("start"))
    core.settle(hands)
    assert core.observed.deploy is None


def test_replayed_facts_make_the_same_of_another_core_and_are_no_news() -> None:
    record, turns = Record(), list[Turn]()
    core = Core(SPEC, now, record)
    core.post(ev.DeployRequested("start"))
    core.settle(Hands())
    second_record = Record()
    follower = Core(SPEC, lambda: 1e9, second_record)
    follower.on_fact(turns.append)
    for fact in record.facts:
        follower.replay(fact, 7.0, 1234.5)
    assert follower.observed == core.observed
    assert second_record.facts == []
    assert {(turn.wall, turn.is_news) for turn in turns} == {(1234.5, False)}


def test_the_service_is_what_the_settings_make_it_also_for_who_is_told_of_them_later() -> None:
    def tune(spec: ServiceSpec, settings: Mapping[str, Any]) -> ServiceSpec:
        return msgspec.structs.replace(spec, name=settings.get("name", spec.name))

    facts: list[Fact] = [
        ev.DeployRequested("start"),
        ev.Configured(1, True, {"name": "other"}),
    ]
    core, follower, heir = (Core(SPEC, now, Record(), tune) for _ in range(3))
    for fact in facts:
        core.take(fact)
        follower.replay(fact, 7.0, 1234.5)
    heir.restore(core.observed)
    assert [one.spec.name for one in (core, follower, heir)] == ["other"] * 3
    core.take(ev.Configured(1, True, {}))
    assert core.spec == SPEC
