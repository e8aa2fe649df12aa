"""The rules of a rolling deploy, step by step."""

from sengu.model.observed import Outcome
from sengu.model.service import BootPolicy, Pacing, ReadyByNotify, Rolling
from tests.unit.support_steps import (
    BROKEN,
    HEALTHY,
    SILENT,
    SLOW,
    Die,
    Next,
    Pace,
    Wait,
    hup,
    make_spec,
)
from tests.unit.support_views import conclusions, crew, deeds, serving

# Nothing but time makes a worker ready here: 5 s after its start.


def test_one_too_many_none_too_few() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling(max_surge=1)))
    assert deeds(world, Next(SLOW, 3), hup()) == ["prepare 2", "start 2/0"]
    assert deeds(world, Wait(5)) == ["stop 1/0", "start 2/1"]
    assert deeds(world, Wait(5)) == ["stop 1/1", "start 2/2"]
    assert deeds(world, Wait(5)) == ["2 succeeded", "stop 1/2", "retire 1"]


def test_two_too_many_none_too_few() -> None:
    world = serving(make_spec(workers=4, strategy=Rolling(max_surge=2)))
    assert deeds(world, Next(SLOW, 4), hup()) == ["prepare 2", "start 2/0"]
    assert deeds(world, Wait(5)) == ["start 2/1", "stop 1/0", "start 2/2"]
    assert deeds(world, Wait(5)) == ["stop 1/1", "stop 1/2", "start 2/3"]
    assert deeds(world, Wait(5)) == ["2 succeeded", "stop 1/3", "retire 1"]


def test_none_too_many_but_the_candidate_and_one_too_few() -> None:
    strategy = Rolling(max_surge=0, max_unavailable=1)
    world = serving(make_spec(workers=3, strategy=strategy))
    assert deeds(world, Next(SLOW, 3), hup()) == ["prepare 2", "start 2/0"]
    assert deeds(world, Wait(5)) == ["stop 1/0", "stop 1/1", "start 2/1"]
    assert deeds(world, Wait(5)) == ["stop 1/2", "start 2/2"]
    assert deeds(world, Wait(5)) == ["2 succeeded", "retire 1"]


def test_a_broken_generation_touches_no_old_worker() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling()))
    world.play(Next(BROKEN, 9), hup(), Wait(60))
    assert crew(world) == {"1/0": "ready", "1/1": "ready", "1/2": "ready"}
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED]


def test_a_deploy_that_fails_halfway_is_rolled_back() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling()))
    world.play(Next(HEALTHY, 2), Next(BROKEN, 3), Next(SLOW, 2), hup(), Wait(2))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ROLLED_BACK]
    assert world.observed.current == 1
    # The two new ones serve until the old slots are filled again.
    assert crew(world) == {
        "1/2": "ready",
        "2/0": "ready",
        "2/1": "ready",
        "1/0": "starting",
        "1/1": "starting",
    }
    assert deeds(world, Wait(5)) == ["stop 2/0", "stop 2/1", "retire 2"]


def test_each_old_worker_stays_for_kill_old_delay_after_its_successor_is_ready() -> None:
    world = serving(make_spec(workers=2, strategy=Rolling()))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)))
    assert deeds(world, hup()) == ["prepare 2", "start 2/0"]
    assert deeds(world, Wait(3)) == ["stop 1/0", "start 2/1", "2 succeeded"]
    assert deeds(world, Wait(3)) == ["stop 1/1", "retire 1"]


def test_an_old_worker_does_not_go_earlier_because_others_can_be_spared() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling(max_surge=2)))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)))
    world.play(Next(HEALTHY), Next(SLOW), Next(SILENT))
    assert deeds(world, hup()) == ["prepare 2", "start 2/0", "start 2/1"]
    assert deeds(world, Wait(3)) == ["stop 1/0", "start 2/2"]
    assert deeds(world, Wait(4.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/1"]


def test_an_old_worker_that_dies_halfway_makes_room_for_a_new_one() -> None:
    world = serving(make_spec(workers=3, strategy=Rolling()))
    world.play(Next(HEALTHY), Next(SLOW, 2), hup())
    assert crew(world) == {"1/1": "ready", "1/2": "ready", "2/0": "ready", "2/1": "starting"}
    assert deeds(world, Die(1)) == ["start 2/2"]


def test_an_old_worker_is_started_again_only_to_keep_up_the_minimum() -> None:
    boot = BootPolicy(ReadyByNotify(), timeout_seconds=20, attempts=9)
    strategy = Rolling(max_surge=1, max_unavailable=1)
    world = serving(make_spec(workers=4, strategy=strategy, boot=boot))
    # The candidate is well, the others are not: each is tried twice, and then waits.
    world.play(Next(HEALTHY), Next(BROKEN, 6), hup())
    assert crew(world) == {"1/2": "ready", "1/3": "ready", "2/0": "ready"}
    assert deeds(world, Die(0)) == ["start 2/3", "start 2/3", "start 1/2"]
    assert crew(world) == {"1/3": "ready", "2/0": "ready", "1/2": "ready"}


def test_hup_halfway_fills_the_old_generation_again_before_the_newest_takes_over() -> None:
    world = serving(make_spec(workers=2, strategy=Rolling()))
    world.play(Next(HEALTHY), Next(SLOW), hup())
    assert crew(world) == {"1/1": "ready", "2/0": "ready", "2/1": "starting"}
    assert deeds(world, Next(SLOW, 9), hup()) == [
        *("2 superseded", "prepare 3", "start 3/0", "start 1/0", "stop 2/1")
    ]
    world.play(Wait(60))
    assert crew(world) == {"3/0": "ready", "3/1": "ready"}
