"""The rules of rest: WINCH stops all workers, a deploy or a scale wakes the service."""

from tests.unit.support_steps import BROKEN, SLOW, Next, Wait, hup, make_spec, scale, winch
from tests.unit.support_views import crew, deeds, serving


def test_winch_stops_all_workers_until_the_next_deploy_wakes_the_service() -> None:
    world = serving(make_spec(workers=2))
    assert deeds(world, winch(), Wait(60)) == ["stop 1/0", "stop 1/1"]
    assert deeds(world, hup()) == [
        *("prepare 2", "start 2/0", "start 2/1", "2 succeeded", "retire 1")
    ]


def test_a_failed_deploy_leaves_a_resting_service_at_rest() -> None:
    world = serving(make_spec(workers=1))
    world.play(winch(), Next(BROKEN, 3), hup(), Wait(60))
    assert crew(world) == {}
    assert deeds(world, hup()) == ["prepare 3", "start 3/0", "3 succeeded", "retire 1"]


def test_hup_while_a_deploy_wakes_the_service_does_not_wake_the_old_generation_either() -> None:
    world = serving(make_spec(workers=1))
    world.play(winch(), Next(SLOW), hup())
    assert deeds(world, Next(SLOW), hup()) == [
        *("2 superseded", "prepare 3", "start 3/0", "stop 2/0", "retire 2")
    ]


def test_a_scale_while_a_deploy_wakes_the_service_wakes_the_old_generation() -> None:
    world = serving(make_spec(workers=1))
    world.play(winch(), Next(SLOW), hup())
    assert deeds(world, scale(2)) == ["start 1/0", "start 1/1"]


def test_a_second_winch_does_not_change_to_what_the_service_wakes() -> None:
    world = serving(make_spec(workers=2))
    world.play(winch(), winch(), hup())
    assert crew(world) == {"2/0": "ready", "2/1": "ready"}


def test_winch_during_a_deploy_ends_in_rest() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SLOW), hup(), winch(), Wait(60))
    assert crew(world) == {}
    assert deeds(world, hup())[-2:] == ["3 succeeded", "retire 2"]
    assert crew(world) == {"3/0": "ready"}


def test_winch_while_a_deploy_wakes_the_service_puts_it_to_rest_again() -> None:
    world = serving(make_spec(workers=1))
    world.play(winch(), Next(SLOW), hup(), winch(), Wait(60))
    assert crew(world) == {}


def test_a_scale_wakes_a_resting_service_with_the_serving_generation() -> None:
    world = serving(make_spec(workers=2))
    world.play(winch())
    assert deeds(world, scale(1)) == ["start 1/0"]
