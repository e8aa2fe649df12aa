"""The rules of a deploy: candidate first, then the rest, then the old ones; or nothing at all."""

from sengu.model.observed import Outcome
from sengu.model.service import BootPolicy, Pacing, ReadyByNotify
from tests.unit.support_steps import (
    BROKEN,
    HANGING,
    HEALTHY,
    LINGERING,
    SILENT,
    SLOW,
    STUBBORN,
    Die,
    Heal,
    Next,
    Pace,
    RefuseForks,
    SpoilGenerations,
    Wait,
    hup,
    make_spec,
    scale,
)
from tests.unit.support_views import conclusions, crew, deeds, serving
from tests.unit.support_world import World

# --- the good end ---


def test_the_first_start_brings_all_workers_up_together() -> None:
    world = World(make_spec(workers=3))
    starts = ["prepare 1", "start 1/0", "start 1/1", "start 1/2"]
    assert deeds(world, Next(SLOW, 3), hup()) == starts
    assert deeds(world, Wait(5)) == ["1 succeeded"]


def test_a_candidate_is_started_alone_and_the_others_when_it_is_ready() -> None:
    world = serving(make_spec(workers=3))
    assert deeds(world, Next(SLOW, 3), hup()) == ["prepare 2", "start 2/0"]
    assert deeds(world, Wait(5)) == ["start 2/1", "start 2/2"]


def test_old_workers_go_only_when_all_new_ones_are_ready() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(HEALTHY), Next(SLOW), hup())
    assert crew(world) == {"1/0": "ready", "1/1": "ready", "2/0": "ready", "2/1": "starting"}
    assert deeds(world, Wait(5)) == ["2 succeeded", "stop 1/0", "stop 1/1", "retire 1"]


def test_old_workers_stay_for_kill_old_delay() -> None:
    world = serving(make_spec(workers=1))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)))
    assert deeds(world, hup()) == ["prepare 2", "start 2/0", "2 succeeded"]
    assert deeds(world, Wait(2.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "retire 1"]


def test_another_deploy_does_not_prolong_kill_old_delay() -> None:
    world = serving(make_spec(workers=1))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)), hup(), Wait(2))
    assert deeds(world, hup()) == ["prepare 3", "start 3/0", "3 succeeded"]
    assert deeds(world, Wait(1)) == ["stop 1/0", "retire 1"]
    assert deeds(world, Wait(2)) == ["stop 2/0", "retire 2"]


def test_an_old_worker_that_dies_within_kill_old_delay_is_not_replaced() -> None:
    world = serving(make_spec(workers=1))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)), hup())
    assert deeds(world, Die(0)) == ["retire 1"]


def test_an_old_worker_stays_when_a_new_one_dies_before_it_was_stopped() -> None:
    world = serving(make_spec(workers=1))
    world.play(Pace(Pacing(kill_old_delay_seconds=3)), hup())
    assert deeds(world, Next(SLOW), Die(1)) == ["start 2/0"]
    assert deeds(world, Wait(4)) == []
    assert deeds(world, Wait(1)) == ["stop 1/0", "retire 1"]


def test_several_generations_drain_at_once_each_with_its_own_deadline() -> None:
    world = serving(make_spec(workers=1), Next(STUBBORN, 3))
    world.play(hup(), Wait(4), hup())
    assert crew(world) == {"1/0": "stopping", "2/0": "stopping", "3/0": "ready"}
    assert deeds(world, Wait(6)) == ["kill 1/0", "retire 1"]
    assert deeds(world, Wait(4)) == ["kill 2/0", "retire 2"]


# --- the bad end ---


def test_failed_deploy_keeps_the_old_generation_serving() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(BROKEN, 9), hup(), Wait(60))
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}
    assert world.observed.current == 1
    (end,) = conclusions(world)
    assert end.outcome is Outcome.ABORTED
    assert end.reason == "3 failures, the last: exit status 1"
    assert end.last_words == "last words of 5"


def test_a_deploy_is_given_up_after_as_many_attempts_as_allowed() -> None:
    world = serving(make_spec(workers=1))
    assert deeds(world, Next(BROKEN, 9), hup(), Wait(60)) == [
        *("prepare 2", "start 2/0", "start 2/0", "start 2/0"),
        *("2 aborted", "retire 2"),
    ]


def test_a_candidate_that_does_not_become_ready_in_time_is_an_attempt_that_failed() -> None:
    boot = BootPolicy(ReadyByNotify(), timeout_seconds=20, attempts=1)
    world = serving(make_spec(workers=1, boot=boot))
    world.play(Next(SILENT), hup())
    assert deeds(world, Wait(19)) == []
    assert deeds(world, Wait(1)) == ["stop 2/0", "2 aborted", "retire 2"]
    assert conclusions(world)[0].reason == "not ready within 20 s"


def test_a_worker_that_fails_after_the_candidate_aborts_the_deploy_too() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(HEALTHY), Next(BROKEN, 3), hup(), Wait(60))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED]
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_start_refused_by_the_system_is_an_attempt_that_failed() -> None:
    world = serving(make_spec(workers=1))
    world.play(RefuseForks(3), hup(), Wait(60))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED]
    assert crew(world) == {"1/0": "ready"}


def test_a_generation_that_can_not_be_prepared_is_not_tried_again() -> None:
    world = serving(make_spec())
    doings = deeds(world, SpoilGenerations(1), hup())
    assert doings == ["prepare 2", "2 aborted", "retire 2"]
    assert conclusions(world)[0].reason == "cannot read env: no such directory"


def test_deaths_in_the_old_generation_are_no_failures_of_the_deploy() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SLOW), Next(BROKEN, 2), hup(), Die(0))
    assert deeds(world, Wait(5))[:3] == ["start 1/0", "start 1/0", "2 succeeded"]


def test_a_deploy_is_not_rolled_back_for_old_workers_that_hung_or_were_scaled_away() -> None:
    spec = make_spec(workers=2, watchdog_seconds=4)
    world = serving(spec, Next(HANGING))
    world.play(Next(SILENT, 9), hup(), scale(1), Wait(300))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED]


def test_the_deploy_after_a_failed_one_has_all_its_attempts() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(BROKEN, 3), hup(), Wait(60), Next(BROKEN, 2), hup(), Wait(60))
    assert crew(world) == {"3/0": "ready"}


def test_a_deploy_after_faults_have_ceased_succeeds() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(BROKEN, 99), hup(), Wait(60), Heal(), hup())
    assert crew(world) == {"3/0": "ready", "3/1": "ready"}


# --- one deploy after the other ---


def test_hup_while_a_generation_starts_supersedes_it() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SLOW), hup())
    assert deeds(world, hup()) == [
        *("2 superseded", "prepare 3", "start 3/0", "stop 2/0"),
        *("3 succeeded", "stop 1/0", "retire 2", "retire 1"),
    ]


def test_a_hundred_hups_at_once_bring_up_one_generation() -> None:
    world = serving(make_spec(workers=1))
    doings = deeds(world, hup(100))
    assert [deed for deed in doings if deed.startswith(("prepare", "start"))] == [
        *("prepare 101", "start 101/0")
    ]
    assert sum(deed.endswith("superseded") for deed in doings) == 99
    assert crew(world) == {"101/0": "ready"}


def test_hup_while_the_old_generation_drains_is_obeyed_at_once() -> None:
    world = serving(make_spec(workers=1), Next(LINGERING, 3))
    world.play(hup())
    assert crew(world) == {"1/0": "stopping", "2/0": "ready"}
    assert deeds(world, hup()) == ["prepare 3", "start 3/0", "3 succeeded", "stop 2/0"]


def test_hup_during_the_first_start_keeps_what_is_ready_until_the_second_is_complete() -> None:
    world = World(make_spec(workers=2))
    world.play(Next(HEALTHY), Next(SILENT), Next(SLOW, 2), hup())
    assert deeds(world, hup()) == [
        *("1 superseded", "prepare 2", "start 2/0", "start 2/1"),
        "stop 1/1",
    ]
    assert crew(world) == {"1/0": "ready", "2/0": "starting", "2/1": "starting"}
    assert deeds(world, Wait(5)) == ["2 succeeded", "stop 1/0", "retire 1"]


# --- the number of workers changes meanwhile ---


def test_scaling_down_during_a_deploy_stops_the_old_workers_beyond_and_starts_fewer() -> None:
    world = serving(make_spec(workers=4))
    world.play(Next(SLOW, 4), hup())
    assert deeds(world, scale(2)) == ["stop 1/2", "stop 1/3"]
    assert deeds(world, Wait(10)) == [
        *("start 2/1", "2 succeeded", "stop 1/0", "stop 1/1", "retire 1")
    ]


def test_a_new_worker_beyond_those_wanted_does_not_make_a_deploy_complete() -> None:
    world = serving(make_spec(workers=3))
    world.play(Next(HEALTHY), Next(SLOW), Next(HEALTHY), hup())
    assert deeds(world, scale(2)) == ["stop 1/2", "stop 2/2"]
    assert deeds(world, Wait(5))[0] == "2 succeeded"


def test_scaling_up_during_a_deploy_fills_both_generations() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SLOW), hup())
    assert deeds(world, scale(2)) == ["start 1/1"]
    assert deeds(world, Wait(5)) == [
        *("start 2/1", "2 succeeded", "stop 1/0", "stop 1/1", "retire 1")
    ]


def test_scaling_to_none_during_a_deploy_lets_it_succeed_with_none() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(SLOW), hup())
    world.play(scale(0))
    assert world.observed.current == 2
    assert crew(world) == {}


def test_a_deploy_of_a_service_scaled_to_none_succeeds_at_once() -> None:
    world = serving(make_spec(workers=0))
    assert deeds(world, hup()) == ["prepare 2", "2 succeeded", "retire 1"]
    assert deeds(world, scale(1)) == ["start 2/0"]


def test_an_old_worker_that_dies_during_a_deploy_is_replaced_by_one_of_its_generation() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(SLOW), hup())
    assert deeds(world, Die(0)) == ["start 1/0"]
