"""Deploys whose old workers are not to finish what they are at (`sengu reload --now`)."""

from sengu.model import actions as do
from sengu.model.observed import Outcome
from sengu.model.service import Pacing, Rolling, StopPolicy, Urge
from tests.unit.support_steps import (
    BROKEN,
    QUIT,
    STUBBORN,
    TERM,
    Next,
    Pace,
    Wait,
    hup,
    make_spec,
    scale,
)
from tests.unit.support_views import changes, conclusions, crew, deeds, serving
from tests.unit.support_world import World


def stops(world: World) -> list[tuple[int, float]]:
    """Signal and grace of each worker that was asked to stop."""
    return [
        (line.action.signal, line.action.kill_at - line.at)
        for line in changes(world)
        if isinstance(line.action, do.StopWorker)
    ]


def test_old_workers_get_quit_and_two_seconds_when_the_new_ones_serve() -> None:
    spec = make_spec(retire=StopPolicy(TERM, 100.0, (Urge(QUIT, 50.0),)))
    world = serving(spec, Next(STUBBORN, 2))
    assert "2 succeeded" in deeds(world, hup(immediate=True))
    assert stops(world) == [(QUIT, 2.0), (QUIT, 2.0)]
    assert deeds(world, Wait(2)) == ["kill 1/0", "kill 1/1", "retire 1"]


def test_a_new_generation_that_does_not_come_up_leaves_them_alone() -> None:
    world = serving(make_spec())
    world.play(Next(BROKEN, 3), hup(immediate=True), Wait(60))
    assert [one.outcome for one in conclusions(world)] == [Outcome.ABORTED]
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}
    assert stops(world) == []


def test_it_does_not_wait_for_the_delay_of_the_old_ones() -> None:
    world = serving(make_spec(), Pace(Pacing(kill_old_delay_seconds=60.0)))
    assert "stop 1/0" in deeds(world, hup(immediate=True))


def test_nor_does_one_that_is_rolling() -> None:
    pace = Pace(Pacing(kill_old_delay_seconds=60.0))
    world = serving(make_spec(strategy=Rolling(), workers=2), pace)
    assert "stop 1/0" in deeds(world, hup(immediate=True))


def test_it_hurries_those_that_an_earlier_deploy_has_told_to_take_their_time() -> None:
    world = serving(make_spec(workers=1, retire=StopPolicy(TERM, 1000.0)), Next(STUBBORN))
    world.play(hup(), Wait(60))
    assert crew(world) == {"1/0": "stopping", "2/0": "ready"}
    world.play(hup(immediate=True), Wait(2))
    assert crew(world) == {"3/0": "ready"}


def test_later_deploys_are_not_immediate_nor_is_what_else_stops_workers() -> None:
    world = serving(make_spec())
    world.play(hup(immediate=True))
    world.record.clear()
    world.play(scale(1), hup())
    assert stops(world) == [(TERM, 10.0), (TERM, 10.0)]


def test_a_rolling_deploy_is_as_quick() -> None:
    world = serving(make_spec(strategy=Rolling()), Next(STUBBORN, 2))
    world.play(hup(immediate=True), Wait(4))
    assert crew(world) == {"2/0": "ready", "2/1": "ready"}
    assert stops(world) == [(QUIT, 2.0), (QUIT, 2.0)]
