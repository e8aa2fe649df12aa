"""The rules of workers with queues of their own: first they drain, then they are asked to stop."""

import pytest

from sengu.model import events as ev
from sengu.model.observed import Outcome, Phase
from sengu.model.service import Rolling
from tests.unit.support_steps import (
    BROKEN,
    HANGING,
    LINGERING,
    SLOW,
    Ask,
    Crowd,
    Die,
    LoseServer,
    Next,
    Stick,
    Wait,
    WearOut,
    hup,
    make_application_spec,
    make_spec,
    scale,
    stop,
    winch,
)
from tests.unit.support_views import changes, conclusions, crew, deeds, serving
from tests.unit.support_world import World

DRAINS = {"drain_seconds": 10.0}


def stop_reasons(world: World) -> list[str]:
    return [c.fact.reason for c in changes(world) if isinstance(c.fact, ev.WorkerStopping)]


def test_old_workers_are_asked_to_stop_when_their_queues_are_empty() -> None:
    world = serving(make_spec(workers=2, **DRAINS), Crowd(3), Crowd(5))
    assert deeds(world, hup()) == [
        "prepare 2",
        "start 2/0",
        "start 2/1",
        "2 succeeded",
        "drain 1/0",
        "drain 1/1",
    ]
    assert crew(world) == {
        "1/0": "draining",
        "1/1": "draining",
        "2/0": "ready",
        "2/1": "ready",
    }
    assert deeds(world, Wait(3)) == ["stop 1/0"]
    assert deeds(world, Wait(2)) == ["stop 1/1", "retire 1"]
    assert stop_reasons(world) == ["generation 2 serves instead"]


def test_a_queue_that_does_not_get_empty_is_waited_for_so_long_and_that_is_said() -> None:
    world = serving(make_spec(workers=1, **DRAINS), Crowd(None))
    world.play(hup())
    assert deeds(world, Wait(9.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "retire 1"]
    assert stop_reasons(world) == [
        "generation 2 serves instead; its queues were not empty after 10 s"
    ]


def test_the_time_to_stop_begins_when_the_queues_are_empty() -> None:
    world = serving(make_spec(workers=1, **DRAINS), Next(LINGERING), Crowd(8))
    world.play(hup(), Wait(8))
    assert crew(world)["1/0"] == "stopping"
    (old,) = world.observed.workers_of(1)
    assert old.kill_at == world.now + 10


def test_without_queues_of_their_own_workers_are_asked_at_once() -> None:
    world = serving(make_spec(workers=1))
    assert deeds(world, hup())[-2:] == ["stop 1/0", "retire 1"]


def test_workers_that_are_starting_have_nothing_to_drain() -> None:
    world = serving(make_spec(workers=1, **DRAINS))
    world.play(Next(SLOW), scale(2))
    assert deeds(world, scale(1)) == ["stop 1/1"]


def test_workers_that_are_scaled_away_drain() -> None:
    world = serving(make_spec(workers=3, **DRAINS), Crowd(3, 2))
    assert deeds(world, scale(1)) == ["drain 1/1", "drain 1/2"]
    assert deeds(world, Wait(3)) == ["stop 1/1", "stop 1/2"]


def test_who_drains_is_not_taken_back_by_a_scale_up() -> None:
    world = serving(make_spec(workers=2, **DRAINS), Crowd(3))
    world.play(scale(1))
    assert deeds(world, scale(2)) == ["start 1/1"]
    assert deeds(world, Wait(3)) == ["stop 1/1"]
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_workers_drain_before_a_rest() -> None:
    world = serving(make_spec(workers=2, **DRAINS), Crowd(3, 2))
    assert deeds(world, winch()) == ["drain 1/0", "drain 1/1"]
    assert deeds(world, Wait(3)) == ["stop 1/0", "stop 1/1"]


def test_a_worn_worker_drains_when_its_successor_is_ready() -> None:
    world = serving(make_application_spec(workers=1, drain_seconds=10.0), Crowd(3))
    world.play(Next(SLOW), WearOut(0))
    assert deeds(world, Wait(5)) == ["drain 1/0"]
    assert deeds(world, Wait(3)) == ["stop 1/0"]


# --- rolling ---


def test_who_drains_does_not_serve_and_does_not_count_as_one_too_many() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling(max_surge=1), **DRAINS), Crowd(3, 3))
    assert deeds(world, hup()) == [
        "prepare 2",
        "start 2/0",
        "drain 1/0",
        "start 2/1",
        "drain 1/1",
        "start 2/2",
        "2 succeeded",
        "drain 1/2",
    ]
    assert deeds(world, Wait(3)) == ["stop 1/0", "stop 1/1", "stop 1/2", "retire 1"]


def test_one_may_drain_when_one_may_be_unavailable() -> None:
    strategy = Rolling(max_surge=0, max_unavailable=1)
    world = serving(make_spec(workers=3, strategy=strategy, **DRAINS), Crowd(3, 3))
    world.play(Next(SLOW, 3), hup())
    assert deeds(world, Wait(5)) == ["drain 1/0", "drain 1/1", "start 2/1"]
    assert deeds(world, Wait(3)) == ["stop 1/0", "stop 1/1"]


def test_a_deploy_that_fails_after_old_workers_began_to_drain_is_rolled_back() -> None:
    world = serving(make_spec(workers=2, strategy=Rolling(), **DRAINS), Crowd(None, 2))
    world.play(Next(SLOW), Next(BROKEN, 3), hup(), Wait(8))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ROLLED_BACK]
    phases = [worker.phase for worker in world.observed.workers_of(1)]
    assert phases == [Phase.DRAINING, Phase.READY, Phase.READY]
    world.play(Wait(20))
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_deploy_is_not_to_blame_for_who_began_to_drain_before_it() -> None:
    world = serving(make_spec(workers=2, strategy=Rolling(), **DRAINS), Crowd(None, 1))
    world.play(Next(SLOW), Next(SLOW), hup(), Wait(5))
    assert crew(world)["1/0"] == "draining"
    world.play(Next(BROKEN, 9), hup(), Wait(20))
    outcomes = [(end.generation, end.outcome) for end in conclusions(world)]
    assert outcomes == [(2, Outcome.SUPERSEDED), (3, Outcome.ABORTED)]


# --- what may happen meanwhile ---


def test_a_worker_that_exits_while_it_drains_has_not_failed() -> None:
    world = serving(make_spec(workers=1, **DRAINS), Crowd(None))
    world.play(scale(0))
    assert deeds(world, Die(0)) == []
    assert not world.observed.workers
    assert not world.observed.slots


@pytest.mark.parametrize("befalls", [Stick(0), Wait(9.9)])
def test_a_worker_that_gets_stuck_while_it_drains_is_stopped_and_has_not_failed(
    befalls: Stick | Wait,
) -> None:
    spec = make_spec(workers=1, watchdog_seconds=5.0, **DRAINS)
    world = serving(spec, Crowd(None), Next(HANGING if befalls != Stick(0) else LINGERING))
    world.play(scale(0))
    assert deeds(world, befalls)[:1] == ["stop 1/0"]
    assert not world.observed.slots


def test_a_stop_does_not_wait_for_queues() -> None:
    world = serving(make_spec(workers=1, **DRAINS), Next(LINGERING), Crowd(None))
    world.play(hup())
    assert deeds(world, stop()) == ["stop 1/0", "stop 2/0"]
    assert deeds(world, Wait(5)) == ["finish"]


def test_that_a_worker_has_drained_counts_only_while_it_drains() -> None:
    world = serving(make_spec(workers=1, **DRAINS))
    (worker,) = world.observed.workers.values()
    assert deeds(world, Ask((ev.WorkerDrained(worker.id, "too early"),))) == []
    assert crew(world) == {"1/0": "ready"}
    assert deeds(world, Crowd(3), scale(0)) == ["drain 1/0"]
    assert crew(world) == {"1/0": "draining"}


def test_a_new_server_knows_for_how_long_a_worker_may_drain() -> None:
    world = serving(make_spec(workers=1, **DRAINS), Crowd(None))
    world.play(hup(), Wait(6), LoseServer(0, away_seconds=2))
    assert crew(world)["1/0"] == "draining"
    assert deeds(world, Wait(2)) == ["stop 1/0", "retire 1"]
