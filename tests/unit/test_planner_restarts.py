"""The rules of keeping the serving generation alive: restarts, deadlines, scale, auto-restart."""

import pytest

from sengu.model import events as ev
from sengu.model.actions import DeclareReady
from sengu.model.observed import Outcome
from sengu.model.service import (
    BootPolicy,
    Pacing,
    ReadyAfterDelay,
    ReadyByProbe,
    RestartPolicy,
    StopPolicy,
)
from sengu.planner import initial, plan, reduce
from tests.unit.support_steps import (
    BROKEN,
    HANGING,
    HEALTHY,
    LINGERING,
    SILENT,
    SLOW,
    STUBBORN,
    TERM,
    USR1,
    Die,
    Fate,
    Heal,
    Next,
    Pace,
    RefuseForks,
    SpoilGenerations,
    Stall,
    Step,
    Wait,
    adjust,
    hup,
    make_spec,
    scale,
    winch,
)
from tests.unit.support_views import conclusions, crew, deeds, serving, start_moments
from tests.unit.support_world import World

ABRT = 6

# --- crashes ---


def test_a_worker_that_dies_is_replaced_at_once() -> None:
    world = serving(make_spec(workers=2))
    assert deeds(world, Die(1)) == ["start 1/1"]
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_slot_that_keeps_dying_waits_twice_as_long_each_time_up_to_the_limit() -> None:
    restart = RestartPolicy(backoff_seconds=1, backoff_max_seconds=8)
    world = serving(make_spec(workers=1, restart=restart))
    world.play(Next(BROKEN, 99), Die(), Wait(32))
    assert start_moments(world) == [0, 1, 3, 7, 15, 23, 31]


def test_a_crash_loop_in_one_slot_leaves_the_others_alone() -> None:
    world = serving(make_spec(workers=3))
    assert set(deeds(world, Next(BROKEN, 99), Die(1), Wait(120))) == {"start 1/1"}
    assert crew(world) == {"1/0": "ready", "1/2": "ready"}


def test_a_worker_that_was_stable_clears_the_account_of_its_slot() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(BROKEN, 3), Die(), Wait(60))
    assert world.observed.slot(1, 0).failures == 4
    world.play(Die())
    assert world.observed.slot(1, 0).failures == 1
    assert crew(world) == {"1/0": "ready"}


def test_a_worker_that_was_not_stable_does_not_clear_the_account() -> None:
    world = serving(make_spec(workers=1))
    world.play(Wait(9.9), Die(), Wait(9.9))
    assert deeds(world, Die()) == []
    assert deeds(world, Wait(1)) == ["start 1/0"]


def test_the_account_tells_how_often_workers_died_and_of_what() -> None:
    world = serving(make_spec(workers=1), Next(HEALTHY), Next(BROKEN, 2))
    world.play(Die(), Wait(60))
    assert world.observed.slot(1, 0).restarts == 3
    assert world.observed.slot(1, 0).last_failure == "exit status 1"


def test_a_worker_that_leaves_with_status_0_is_replaced_too() -> None:
    world = serving(make_spec(workers=1), Next(Fate(dies_after=30)))
    assert deeds(world, Wait(30)) == ["start 1/0"]


def test_a_start_refused_by_the_system_is_tried_again_with_back_off() -> None:
    world = serving(make_spec(workers=1))
    world.play(RefuseForks(2), Die(), Wait(3))
    assert start_moments(world) == [0, 1, 3]
    assert crew(world) == {"1/0": "ready"}
    assert world.observed.slot(1, 0).restarts == 1


# --- readiness and its deadline ---


def test_a_worker_that_says_nothing_is_ready_when_alive_after_the_delay() -> None:
    boot = BootPolicy(ReadyAfterDelay(1), timeout_seconds=20, attempts=1)
    world = World(make_spec(workers=1, boot=boot))
    world.play(Next(SILENT), hup(), Wait(0.9))
    assert crew(world) == {"1/0": "starting"}
    assert deeds(world, Wait(0.1)) == ["declare 1/0", "1 succeeded"]


def test_the_deadline_to_be_ready_does_not_hold_for_a_delay() -> None:
    boot = BootPolicy(ReadyAfterDelay(30), timeout_seconds=20, attempts=1)
    world = World(make_spec(workers=1, boot=boot))
    world.play(hup(), Wait(30))
    assert crew(world) == {"1/0": "ready"}


def test_a_replacement_that_is_not_ready_in_time_is_stopped_and_another_started() -> None:
    boot = BootPolicy(ReadyByProbe(), timeout_seconds=20, attempts=1)
    world = serving(make_spec(workers=1, boot=boot))
    world.play(Next(SILENT), Die())
    assert deeds(world, Wait(20)) == ["stop 1/0"]
    assert deeds(world, Wait(1)) == ["start 1/0"]


def test_a_worker_stopped_for_a_missed_deadline_is_charged_once() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SILENT), Die(), Wait(25))
    assert world.observed.slot(1, 0).failures == 2


def test_readiness_and_a_stop_that_cross_end_in_a_stop() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(Fate(ready_after=1, exits_after=None)), Die(1))
    assert deeds(world, scale(1), Wait(1)) == ["stop 1/1"]
    assert crew(world) == {"1/0": "ready", "1/1": "stopping"}


def test_a_worker_has_all_its_time_from_the_moment_it_is_there_however_slow_the_fork() -> None:
    spec = make_spec(workers=1, boot=BootPolicy(ReadyAfterDelay(5), timeout_seconds=20, attempts=1))
    observed = initial(spec)
    for fact in (
        ev.DeployRequested("start"),
        ev.GenerationPrepared(1, Pacing()),
        ev.WorkerRequested(1, 1, 0, "first generation"),
    ):
        observed = reduce(spec, observed, fact, 100.0)
    assert plan(spec, observed, 119.9).actions == ()
    observed = reduce(spec, observed, ev.WorkerStarted(1, 1, 0, 77, "first generation"), 119.9)
    assert plan(spec, observed, 124.8).actions == ()
    assert plan(spec, observed, 124.9).actions == (DeclareReady(1, "alive after 5 s"),)


def test_a_worker_that_is_told_of_twice_begins_once() -> None:
    spec = make_spec(workers=1)
    started = ev.WorkerStarted(1, 1, 0, 77, "first generation")
    once = reduce(spec, initial(spec), started, 100.0)
    assert reduce(spec, once, started, 105.0) == once
    assert reduce(spec, once, ev.WorkerRequested(1, 1, 0, "first generation"), 105.0) == once
    gone = reduce(spec, once, ev.WorkerExited(1, "signal KILL"), 106.0)
    assert reduce(spec, gone, started, 107.0) == gone


def test_a_worker_without_a_process_is_a_failure_but_no_restart() -> None:
    spec = make_spec(workers=1)
    observed = initial(spec)
    for fact in (
        ev.DeployRequested("start"),
        ev.WorkerRequested(1, 1, 0, "first generation"),
        ev.WorkerExited(1, "no process: ENOMEM"),
    ):
        observed = reduce(spec, observed, fact, 100.0)
    account = observed.slot(1, 0)
    assert (account.failures, account.restarts) == (1, 0)
    assert account.last_failure == "no process: ENOMEM"


# --- the watchdog ---


def test_a_worker_that_does_not_beat_gets_abrt_then_kill_and_is_replaced_at_once() -> None:
    world = serving(make_spec(workers=1, watchdog_seconds=10), Next(HANGING))
    assert deeds(world, Wait(9.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "start 1/0"]
    assert world.observed.workers[1].stop_signal == ABRT
    assert deeds(world, Wait(2)) == ["kill 1/0"]


def test_a_worker_that_beats_is_left_alone() -> None:
    world = serving(make_spec(workers=1, watchdog_seconds=10))
    assert deeds(world, Wait(100)) == []


def test_the_watchdog_does_not_watch_before_readiness() -> None:
    fate = Fate(ready_after=15, beats_until=0)
    world = serving(make_spec(workers=1, watchdog_seconds=10))
    world.play(Next(fate), Die())
    assert deeds(world, Wait(15)) == []
    assert deeds(world, Wait(10)) == ["stop 1/0", "start 1/0"]


def test_a_server_that_overslept_hears_the_beats_before_it_judges() -> None:
    world = serving(make_spec(workers=1, watchdog_seconds=10))
    assert deeds(world, Stall(100)) == []


def test_beats_that_no_server_was_there_to_hear_are_not_missed() -> None:
    spec = make_spec(workers=1, watchdog_seconds=10)
    world = serving(spec)
    adopted = ev.ServerAdopted(pid=7, workers=1, ended=0, unwanted=0, missing=0)
    observed = reduce(spec, world.observed, adopted, world.now + 100)
    assert plan(spec, observed, world.now + 109.9).actions == ()
    assert plan(spec, observed, world.now + 110).actions != ()


def test_a_worker_that_is_not_ready_yet_is_not_watched_from_the_adoption_on() -> None:
    spec = make_spec(watchdog_seconds=10)
    observed = reduce(spec, initial(spec), ev.WorkerStarted(1, 1, 0, 77, "first"), 100.0)
    adopted = ev.ServerAdopted(pid=7, workers=1, ended=0, unwanted=0, missing=0)
    assert reduce(spec, observed, adopted, 105.0) == observed


# --- scale ---


def test_scaling_up_starts_the_missing_slots() -> None:
    world = serving(make_spec(workers=1))
    assert deeds(world, scale(3)) == ["start 1/1", "start 1/2"]


def test_scaling_down_stops_the_last_slots() -> None:
    world = serving(make_spec(workers=3))
    assert deeds(world, scale(1)) == ["stop 1/1", "stop 1/2"]
    assert crew(world) == {"1/0": "ready"}


def test_scaling_down_keeps_a_ready_worker_while_one_that_is_to_stay_is_not_ready() -> None:
    world = serving(make_spec(workers=2))
    world.play(Next(SLOW), Die(0))
    assert deeds(world, scale(1)) == []
    assert deeds(world, Wait(5)) == ["stop 1/1"]


def test_scaling_up_while_the_former_worker_of_the_slot_drains_starts_another() -> None:
    world = serving(make_spec(workers=2), Next(LINGERING, 2))
    world.play(scale(1))
    assert deeds(world, scale(2)) == ["start 1/1"]


@pytest.mark.parametrize(("step", "slots"), [(adjust(1), 3), (adjust(-1), 1), (adjust(-5), 0)])
def test_ttin_and_ttou_change_the_number_but_not_below_none(step: Step, slots: int) -> None:
    world = serving(make_spec(workers=2))
    world.play(step)
    assert len(crew(world)) == slots


def test_ttou_does_not_change_to_what_a_resting_service_wakes() -> None:
    world = serving(make_spec(workers=2))
    world.play(winch(), adjust(-1), hup())
    assert len(crew(world)) == 2


def test_a_crash_in_a_slot_scaled_away_is_not_repaired() -> None:
    world = serving(make_spec(workers=2), Next(STUBBORN, 2))
    assert deeds(world, scale(1), Die(1), Wait(60)) == ["stop 1/1"]


# --- who is asked to stop ---


def test_an_old_worker_is_stopped_by_the_signal_for_retirement_and_killed_after_its_grace() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(USR1, 5), stop=StopPolicy(TERM, 30))
    world = serving(spec, Next(STUBBORN))
    world.play(hup())
    assert world.observed.workers[1].stop_signal == USR1
    assert deeds(world, Wait(4.9)) == []
    assert deeds(world, Wait(0.1)) == ["kill 1/0", "retire 1"]


# --- auto-restart ---


def test_auto_restart_deploys_after_each_interval() -> None:
    world = serving(make_spec(workers=1), Pace(Pacing(auto_restart_seconds=100)))
    assert deeds(world, Wait(99.9)) == []
    assert deeds(world, Wait(0.1)) == [
        *("deploy by auto-restart", "prepare 2", "start 2/0"),
        *("2 succeeded", "stop 1/0", "retire 1"),
    ]
    assert deeds(world, Wait(100))[0] == "deploy by auto-restart"


def test_auto_restart_waits_for_old_workers_but_not_beyond_two_intervals() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(TERM, 1000))
    world = serving(spec, Pace(Pacing(auto_restart_seconds=100)), Next(STUBBORN))
    world.play(hup())
    assert deeds(world, Wait(199.9)) == []
    assert deeds(world, Wait(0.1))[0] == "deploy by auto-restart"


def test_auto_restart_comes_when_the_last_old_worker_is_gone() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(TERM, 1000))
    fate = Fate(exits_after=150)
    world = serving(spec, Pace(Pacing(auto_restart_seconds=100)), Next(fate))
    world.play(hup())
    assert deeds(world, Wait(149.9)) == []
    assert deeds(world, Wait(0.1))[0] == "deploy by auto-restart"


def test_an_auto_restart_that_failed_is_tried_again_an_interval_later() -> None:
    world = serving(make_spec(workers=1), Pace(Pacing(auto_restart_seconds=100)))
    world.play(SpoilGenerations(99), Wait(350), Heal(), Wait(50))
    outcomes = [end.outcome for end in conclusions(world)]
    assert outcomes == [Outcome.ABORTED] * 3 + [Outcome.SUCCEEDED]


def test_a_deploy_by_hand_postpones_the_next_auto_restart() -> None:
    world = serving(make_spec(workers=1), Pace(Pacing(auto_restart_seconds=100)))
    world.play(Wait(60), hup())
    assert deeds(world, Wait(99.9)) == []
    assert deeds(world, Wait(0.1))[0] == "deploy by auto-restart"


def test_a_resting_service_is_not_woken_by_auto_restart() -> None:
    world = serving(make_spec(workers=1), Pace(Pacing(auto_restart_seconds=100)))
    assert deeds(world, winch(), Wait(1000)) == ["stop 1/0"]
