"""Workers that start one after the other (`--start-delay`)."""

import itertools

import pytest

from sengu.model import actions as do
from sengu.model.service import StartPolicy
from tests.unit.support_steps import Die, Fate, LoseServer, Next, Wait, hup, make_spec, scale, stop
from tests.unit.support_views import changes, crew, deeds, serving
from tests.unit.support_world import World

APART = StartPolicy(delay_seconds=2.0)


def start_times(world: World) -> list[float]:
    """Seconds from the first start to each of the others."""
    moments = [line.at for line in changes(world) if isinstance(line.action, do.StartWorker)]
    return [moment - moments[0] for moment in moments]


def test_the_first_comes_at_once_and_the_others_so_far_apart() -> None:
    world = World(make_spec(workers=3, start=APART))
    assert deeds(world, hup()) == ["prepare 1", "start 1/0"]
    assert deeds(world, Wait(1.9)) == []
    assert deeds(world, Wait(0.1)) == ["start 1/1"]
    assert deeds(world, Wait(2)) == ["start 1/2", "1 succeeded"]


def test_without_a_delay_all_come_at_once() -> None:
    world = World(make_spec(workers=3))
    assert deeds(world, hup())[:4] == ["prepare 1", "start 1/0", "start 1/1", "start 1/2"]


def test_a_deploy_has_a_rhythm_of_its_own() -> None:
    world = World(make_spec(workers=2, start=APART))
    world.play(hup(), Wait(2))
    assert deeds(world, hup()) == ["prepare 2", "start 2/0"]
    assert "start 2/1" in deeds(world, Wait(2))


def test_who_is_replaced_long_after_does_not_wait() -> None:
    world = World(make_spec(workers=2, start=APART))
    world.play(hup(), Wait(60))
    assert deeds(world, Die(0)) == ["start 1/0"]


def test_many_that_die_together_come_back_one_after_the_other() -> None:
    world = World(make_spec(workers=3, start=APART))
    world.play(hup(), Wait(60))
    assert deeds(world, Die(0), Die(0), Die(0)) == ["start 1/0"]
    assert deeds(world, Wait(4)) == ["start 1/1", "start 1/2"]


def test_so_do_those_of_a_scale() -> None:
    world = World(make_spec(workers=1, start=APART))
    world.play(hup(), Wait(60))
    assert deeds(world, scale(3)) == ["start 1/1"]
    assert deeds(world, Wait(2)) == ["start 1/2"]


def test_the_time_between_varies_by_the_jitter_and_in_the_same_way_each_time() -> None:
    spec = make_spec(workers=20, start=StartPolicy(10.0, jitter=0.2))
    first, second = World(spec), World(spec)
    for world in (first, second):
        world.play(hup(), Wait(400))
    times = start_times(first)
    assert times == start_times(second)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(9.0 - 1e-6 <= pause <= 11.0 + 1e-6 for pause in pauses)
    assert len({round(pause, 3) for pause in pauses}) == len(pauses)
    assert sum(pauses) / len(pauses) == pytest.approx(10.0, rel=0.02)


def test_a_new_server_keeps_the_rhythm() -> None:
    world = World(make_spec(workers=2, start=APART))
    world.play(hup(), Wait(1))
    assert deeds(world, LoseServer(), Wait(0.9)) == []
    assert "start 1/1" in deeds(world, Wait(0.1))


def test_a_stop_starts_nobody_who_was_still_to_come() -> None:
    world = World(make_spec(workers=3, start=APART))
    world.play(Next(Fate()), hup())
    assert deeds(world, stop(), Wait(60))[-1] == "finish"
    assert start_times(world) == []
    assert crew(world) == {}


def test_a_ready_service_is_left_in_peace() -> None:
    world = serving(make_spec(workers=1, start=APART))
    assert deeds(world, Wait(60)) == []
