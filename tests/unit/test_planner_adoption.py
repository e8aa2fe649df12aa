"""The rules of adoption: that a server was lost leaves no trace, whenever it was."""

import itertools

import pytest

from sengu.model import events as ev
from sengu.model.observed import Outcome
from sengu.model.service import BootPolicy, ReadyAfterDelay, Rolling, ServiceSpec
from tests.unit.support_steps import (
    BROKEN,
    HANGING,
    LINGERING,
    SILENT,
    SLOW,
    STUBBORN,
    Command,
    Die,
    Fate,
    Loading,
    LoseForkServers,
    LoseServer,
    Next,
    RefuseForks,
    SlowForks,
    Step,
    Wait,
    WearOut,
    hup,
    make_application_spec,
    make_spec,
    scale,
    stop,
    winch,
)
from tests.unit.support_views import changes, conclusions, crew, deeds
from tests.unit.support_world import World

_STORIES: dict[str, tuple[Step, ...]] = {
    "a deploy": (hup(), Wait(60)),
    "a deploy of slow workers": (Next(SLOW, 2), hup(), Wait(60)),
    "a deploy while old workers linger": (Next(LINGERING, 2), hup(), Wait(60), hup(), Wait(60)),
    "a deploy that fails": (Next(BROKEN, 3), hup(), Wait(60)),
    "a deploy that is not ready in time": (Next(SILENT, 3), hup(), Wait(120)),
    "a scale up": (scale(4), Wait(60)),
    "a scale down": (scale(1), Wait(60)),
    "a crash": (Die(0), Wait(60)),
    "a crash loop": (Next(BROKEN, 3), Die(0), Wait(60)),
    "rest": (winch(), Wait(60)),
    "rest and a deploy": (winch(), Wait(1), hup(), Wait(60)),
    "a refused start": (RefuseForks(1), Die(0), Wait(60)),
    "a worn worker": (WearOut(0), Wait(60)),
    "a lost fork server": (LoseForkServers(), Die(0), Wait(60)),
    "a slow fork": (SlowForks(3), Die(0), Wait(60)),
    "a slow application": (Loading(5), hup(), Wait(60)),
    "a broken application": (Loading(5, fails=True, count=9), hup(), Wait(60)),
    "a slow command": (Command(5), hup(), Wait(60)),
    "a broken command": (Command(5, fails=True, count=9), hup(), Wait(60)),
    "a command that takes too long": (Command(None, exits_after=5), hup(), Wait(120)),
    "a stop": (stop(), Wait(60)),
    "a stop of the stubborn": (Next(STUBBORN, 2), hup(), Wait(60), stop(), Wait(60)),
    "an immediate stop": (stop(immediate=True), Wait(60)),
}
_SPECS: dict[str, ServiceSpec] = {
    "programs": make_spec(watchdog_seconds=10),
    "programs that say nothing": make_spec(
        boot=BootPolicy(ReadyAfterDelay(5), timeout_seconds=20, attempts=3)
    ),
    "programs with commands": make_spec(pre_deploy=(("one",), ("two",)), pre_deploy_seconds=60.0),
    "application": make_application_spec(),
    "application, rolling": make_application_spec(strategy=Rolling(0, 1)),
}


def _settled(spec: ServiceSpec) -> World:
    world = World(spec)
    world.play(hup(), Wait(60))
    world.record.clear()
    return world


def _adoptions(world: World) -> list[ev.ServerAdopted]:
    facts = (change.fact for change in changes(world))
    return [fact for fact in facts if isinstance(fact, ev.ServerAdopted)]


def _end(world: World) -> tuple[list[str], bool, int]:
    """How a story ends: states of the workers, whether all is over, the number of processes."""
    return sorted(crew(world).values()), world.finished is not None, len(world.living)


@pytest.mark.parametrize("spec", _SPECS.values(), ids=_SPECS)
@pytest.mark.parametrize("steps", _STORIES.values(), ids=_STORIES)
def test_a_story_ends_the_same_at_whatever_instant_the_server_is_lost(
    spec: ServiceSpec, steps: tuple[Step, ...]
) -> None:
    undisturbed = _settled(spec)
    undisturbed.play(*steps)
    outcomes = {end.outcome for end in conclusions(undisturbed)}
    for instant in itertools.count(1):
        world = _settled(spec)
        world.play(LoseServer(instant), *steps)
        if not _adoptions(world):  # the story has no more instants
            break
        assert _end(world) == _end(undisturbed), world.story()
        # A signal that the lost server had not said to have heard is heard again.
        assert {end.outcome for end in conclusions(world)} - {Outcome.SUPERSEDED} == outcomes


# --- what a new server finds ---


def test_a_new_server_tells_who_lives_and_who_has_ended_meanwhile() -> None:
    world = _settled(make_spec(workers=3))
    world.play(Next(Fate(dies_after=5)), Die(1), Wait(4), LoseServer(away_seconds=10))
    assert [(one.workers, one.ended) for one in _adoptions(world)] == [(2, 1)]
    assert crew(world) == {"1/0": "ready", "1/1": "ready", "1/2": "ready"}


def test_workers_that_were_asked_for_are_asked_for_again_if_the_order_never_left() -> None:
    for instant in range(1, 20):
        world = _settled(make_spec(workers=1))
        world.play(LoseServer(instant), scale(3))
        assert len(world.living) == 3
        if any(one.missing for one in _adoptions(world)):
            return
    pytest.fail("an order left at every instant")


def test_a_worker_that_comes_when_nobody_waits_for_it_any_more_is_killed_by_the_next_server() -> (
    None
):
    world = _settled(make_application_spec(workers=1))
    world.play(SlowForks(30), scale(2), Wait(1), scale(1), Wait(15))  # it is given up by now
    world.play(LoseServer(away_seconds=20))
    assert [one.unwanted for one in _adoptions(world)] == [1]
    assert len(world.living) == 1


def test_a_worker_that_was_asked_to_stop_before_it_was_there_hears_it_from_the_next_server() -> (
    None
):
    world = _settled(make_application_spec(workers=1))
    world.play(Next(LINGERING), SlowForks(3), scale(2), Wait(1), scale(1))
    world.play(LoseServer(away_seconds=3))
    assert crew(world) == {"1/0": "ready", "1/1": "stopping"}
    assert deeds(world, Wait(5)) == []
    assert crew(world) == {"1/0": "ready"}


def test_a_worker_that_was_asked_to_stop_is_not_waited_for_when_nobody_knows_of_its_birth() -> None:
    world = _settled(make_application_spec(workers=1))
    world.play(SlowForks(5), scale(2), Wait(1), scale(1), LoseServer())
    assert crew(world) == {"1/0": "ready"}
    assert deeds(world, Wait(60)) == []
    assert len(world.living) == 1


def test_who_has_outlived_the_deadline_while_no_server_was_there_is_killed_at_once() -> None:
    world = _settled(make_spec(workers=1))
    world.play(Next(STUBBORN), hup(), hup())
    assert deeds(world, LoseServer(away_seconds=20)) == ["kill 2/0", "retire 2"]


def test_a_worker_that_beats_is_not_blamed_for_the_time_without_a_server() -> None:
    world = _settled(make_spec(workers=1, watchdog_seconds=10))
    assert deeds(world, LoseServer(away_seconds=100), Wait(100)) == []


def test_a_worker_that_has_ceased_to_beat_is_stopped_within_its_time_from_the_adoption_on() -> None:
    world = World(make_spec(workers=1, watchdog_seconds=10))
    world.play(Next(HANGING), hup(), Wait(9), LoseServer())
    assert deeds(world, Wait(9.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "start 1/0"]


def test_a_new_server_goes_on_with_a_deploy_where_the_last_one_stopped() -> None:
    world = _settled(make_spec(workers=2))
    world.play(Next(SLOW, 2), hup(), Wait(1))
    assert deeds(world, LoseServer(away_seconds=2), Wait(1.9)) == []
    assert deeds(world, Wait(0.1)) == ["start 2/1"]
    assert deeds(world, Wait(5)) == ["2 succeeded", "stop 1/0", "stop 1/1", "retire 1"]


def test_a_fork_server_that_is_gone_is_replaced_when_a_worker_is_needed() -> None:
    world = _settled(make_application_spec())
    world.play(LoseServer(2), LoseForkServers())
    assert deeds(world, Die(0)) == ["prepare 1", "start 1/0"]


def test_an_application_goes_on_to_load_while_no_server_is_there() -> None:
    world = _settled(make_application_spec(workers=1))
    world.play(Loading(5), hup(), Wait(1))
    assert deeds(world, LoseServer(away_seconds=5)) == [
        *("start 2/0", "2 succeeded", "stop 1/0", "retire 1")
    ]
