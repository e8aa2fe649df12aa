"""The rules of applications: loaded before the first worker, recycled with the successor first."""

from sengu.model import events as ev
from sengu.model.application import Wear
from sengu.model.service import Rolling
from tests.unit.support_steps import (
    BROKEN,
    SILENT,
    SLOW,
    STUBBORN,
    Ask,
    Die,
    Loading,
    LoseForkServers,
    Next,
    Stick,
    Wait,
    WearOut,
    hup,
    make_application_spec,
    scale,
    winch,
)
from tests.unit.support_views import conclusions, crew, deeds, serving
from tests.unit.support_world import World

# --- loading ---


def test_workers_are_started_when_the_application_is_loaded_and_not_before() -> None:
    world = World(make_application_spec())
    assert deeds(world, Loading(5.0), hup(), Wait(4.9)) == ["prepare 1"]
    assert deeds(world, Wait(0.1)) == ["start 1/0", "start 1/1", "1 succeeded"]


def test_an_application_that_can_not_be_loaded_aborts_its_deploy_at_once_with_its_traceback() -> (
    None
):
    world = serving(make_application_spec())
    assert deeds(world, Loading(1.0, fails=True), hup(), Wait(1)) == [
        "prepare 2",
        "2 aborted",
        "retire 2",
    ]
    verdict = conclusions(world)[0]
    assert (verdict.reason, verdict.last_words) == ("ImportError", "traceback")
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_the_first_application_that_can_not_be_loaded_ends_the_service() -> None:
    world = World(make_application_spec())
    world.play(Loading(1.0, fails=True), hup(), Wait(1))
    assert world.finished is not None
    assert world.finished.failure == "ImportError"


def test_an_application_that_loads_for_too_long_is_given_up() -> None:
    world = serving(make_application_spec())
    assert deeds(world, Loading(None), hup(), Wait(20)) == [
        "prepare 2",
        "abandon 2",
        "2 aborted",
        "retire 2",
    ]
    assert "not loaded within 20 s" in conclusions(world)[0].reason


def test_a_deploy_that_is_asked_for_while_another_loads_takes_its_place() -> None:
    world = serving(make_application_spec(workers=1))
    assert deeds(world, Loading(5.0), hup(), Wait(1), hup()) == [
        "prepare 2",
        "2 superseded",
        "prepare 3",
        "retire 2",
        "start 3/0",
        "3 succeeded",
        "stop 1/0",
        "retire 1",
    ]


# --- a fork server dies ---


def test_a_fork_server_that_dies_changes_nothing_until_a_worker_is_needed() -> None:
    world = serving(make_application_spec())
    assert deeds(world, LoseForkServers(), Wait(100)) == []
    assert deeds(world, Die(0)) == ["prepare 1", "start 1/0"]
    assert crew(world) == {"1/1": "ready", "1/0": "ready"}


def test_a_fork_server_that_can_not_be_brought_back_is_tried_again_more_and_more_slowly() -> None:
    world = serving(make_application_spec(workers=1))
    world.play(LoseForkServers(), Loading(0.0, fails=True, count=4))
    assert deeds(world, Die(0)) == ["prepare 1"]
    assert deeds(world, Wait(0.9)) == []
    assert deeds(world, Wait(0.1)) == ["prepare 1"]
    assert deeds(world, Wait(1.9)) == []
    assert deeds(world, Wait(0.1)) == ["prepare 1"]
    assert deeds(world, Wait(4)) == ["prepare 1"]
    assert deeds(world, Wait(8)) == ["prepare 1", "start 1/0"]


def test_a_fork_server_is_not_brought_back_before_a_slot_may_be_filled_again() -> None:
    world = serving(make_application_spec(workers=1))
    assert deeds(world, Next(BROKEN), Die(0)) == ["start 1/0"]
    assert deeds(world, LoseForkServers(), Wait(0.9)) == []
    assert deeds(world, Wait(0.1)) == ["prepare 1", "start 1/0"]


def test_a_fork_server_that_dies_during_a_deploy_is_started_anew_for_the_rest() -> None:
    world = serving(make_application_spec())
    assert deeds(world, Next(SLOW), hup(), LoseForkServers(), Wait(5)) == [
        "prepare 2",
        "start 2/0",
        "prepare 2",
        "start 2/1",
        "2 succeeded",
        "stop 1/0",
        "stop 1/1",
        "retire 1",
    ]


def test_a_fork_server_that_dies_when_all_its_workers_are_ready_is_not_missed() -> None:
    world = serving(make_application_spec(workers=1))
    world.play(Next(SILENT), hup())
    (new,) = world.observed.workers_of(2)
    facts = (ev.GenerationLost(2, "signal KILL"), ev.WorkerReady(new.id, "test"))
    assert deeds(world, Ask(facts)) == ["2 succeeded", "stop 1/0", "retire 1"]


# --- stuck ---


def test_a_worker_stuck_in_a_request_is_stopped_by_abrt_and_replaced() -> None:
    world = serving(make_application_spec())
    assert deeds(world, Stick(1)) == ["stop 1/1", "start 1/1"]
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_stuck_worker_that_does_not_go_is_killed_after_two_seconds() -> None:
    world = World(make_application_spec(workers=1))
    world.play(Next(STUBBORN), hup())
    assert deeds(world, Stick(0), Wait(1.9)) == ["stop 1/0", "start 1/0"]
    assert deeds(world, Wait(0.1)) == ["kill 1/0"]


# --- worn out ---


def test_a_worn_worker_goes_when_its_successor_is_ready_and_not_before() -> None:
    world = serving(make_application_spec())
    assert deeds(world, Next(SLOW), WearOut(0), Wait(4.9)) == ["start 1/0"]
    assert deeds(world, Wait(0.1)) == ["stop 1/0"]
    assert crew(world) == {"1/1": "ready", "1/0": "ready"}


def test_worn_workers_are_replaced_one_after_the_other() -> None:
    world = serving(make_application_spec())
    steps = (Next(SLOW, 2), WearOut(0), WearOut(1), Wait(4))
    assert deeds(world, *steps) == ["start 1/0"]
    assert deeds(world, Wait(1)) == ["stop 1/0", "start 1/1"]
    assert deeds(world, Wait(5)) == ["stop 1/1"]


def test_a_successor_that_fails_is_tried_again_and_the_worn_worker_serves_on() -> None:
    world = serving(make_application_spec(workers=1))
    assert deeds(world, Next(BROKEN, 3), WearOut(0)) == ["start 1/0", "start 1/0"]
    assert crew(world) == {"1/0": "ready"}
    assert deeds(world, Wait(1)) == ["start 1/0"]
    assert deeds(world, Wait(2)) == ["start 1/0", "stop 1/0"]


def test_the_end_of_a_worn_worker_does_not_make_up_for_the_failures_of_its_successors() -> None:
    world = serving(make_application_spec(workers=1))
    world.play(Wait(60), Next(BROKEN, 9), WearOut(0), Wait(1))
    assert world.observed.slot(1, 0).failures == 3
    assert deeds(world, Die(0), Wait(3.9)) == []
    assert world.observed.slot(1, 0).failures == 4
    assert deeds(world, Wait(0.1)) == ["start 1/0"]


def test_workers_wear_out_by_age_and_not_all_together() -> None:
    world = serving(make_application_spec(Wear(max_age_seconds=100.0, jitter=0.1), workers=3))
    assert deeds(world, Wait(89.9)) == []
    assert len(deeds(world, Wait(5))) in (2, 4)
    done = deeds(world, Wait(5.2))
    assert crew(world) == dict.fromkeys(("1/0", "1/1", "1/2"), "ready")
    assert len(done) >= 2


def test_nobody_is_recycled_during_a_deploy_for_it_replaces_them_all() -> None:
    world = serving(make_application_spec(workers=1))
    world.play(Next(SILENT), hup())
    assert deeds(world, WearOut(0)) == []


def test_a_resting_service_recycles_nobody() -> None:
    world = serving(make_application_spec(workers=1))
    world.play(WearOut(0), winch())
    assert crew(world) == {}


def test_a_worn_worker_is_replaced_under_rolling_as_well() -> None:
    world = serving(make_application_spec(strategy=Rolling(1, 0)))
    assert deeds(world, WearOut(0)) == ["start 1/0", "stop 1/0"]


def test_scaling_down_takes_the_worn_one_and_its_successor() -> None:
    world = serving(make_application_spec(workers=2))
    world.play(Next(SLOW), WearOut(1), scale(1), Wait(10))
    assert crew(world) == {"1/0": "ready"}


def test_a_worker_that_was_asked_for_has_no_pid_until_it_is_born() -> None:
    world = World(make_application_spec(workers=1))
    world.play(hup())
    (worker,) = world.observed.workers.values()
    assert worker.pid > 0
    world.play(Ask((ev.WorkerRequested(99, 1, 0, "test"),)))
    assert world.observed.workers[99].pid == 0
