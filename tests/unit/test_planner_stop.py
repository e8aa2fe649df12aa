"""The rules of the end: everybody is asked once, nobody outlives the deadline, then it is over."""

from sengu.model import events as ev
from sengu.model.observed import Outcome
from sengu.model.service import StopPolicy
from tests.unit.support_steps import (
    BROKEN,
    HEALTHY,
    LINGERING,
    SLOW,
    STUBBORN,
    TERM,
    USR1,
    Ask,
    Crowd,
    Die,
    LoseServer,
    Next,
    SpoilGenerations,
    Wait,
    hup,
    make_spec,
    scale,
    stop,
    winch,
)
from tests.unit.support_views import conclusions, crew, deeds, serving
from tests.unit.support_world import World


def test_every_worker_is_asked_once_and_the_service_ends_with_the_last() -> None:
    world = serving(make_spec(workers=2), Next(LINGERING), Next(HEALTHY))
    assert deeds(world, stop()) == ["stop 1/0", "stop 1/1"]
    assert deeds(world, Wait(5)) == ["finish"]
    assert world.finished is not None
    assert world.finished.failure == ""


def test_a_worker_that_ignores_the_stop_signal_is_killed_at_the_end_of_the_grace_period() -> None:
    world = serving(make_spec(workers=1), Next(STUBBORN))
    assert deeds(world, stop(), Wait(9.9)) == ["stop 1/0"]
    assert deeds(world, Wait(0.1)) == ["kill 1/0", "finish"]


def test_nobody_is_replaced_during_a_stop() -> None:
    world = serving(make_spec(workers=2), Next(LINGERING, 2))
    assert deeds(world, stop(), Die(0), Wait(5)) == ["stop 1/0", "stop 1/1", "finish"]


def test_a_service_without_workers_ends_at_once() -> None:
    world = serving(make_spec(workers=2))
    assert deeds(world, winch(), stop()) == ["stop 1/0", "stop 1/1", "finish"]


def test_when_the_service_is_over_nothing_is_left_to_be_done() -> None:
    world = serving(make_spec())
    assert deeds(world, stop()).count("finish") == 1


# --- as a lame duck ---


def test_a_lame_duck_serves_on_before_anybody_is_asked_to_stop() -> None:
    world = serving(make_spec(workers=2, lame_duck_seconds=5.0), Next(STUBBORN, 2))
    assert deeds(world, stop(), Wait(4.9)) == []
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "stop 1/1"]
    assert deeds(world, Wait(9.9)) == []  # all of the grace period is theirs
    assert deeds(world, Wait(0.1)) == ["kill 1/0", "kill 1/1", "finish"]


def test_a_second_stop_ends_the_phase_at_once() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0), Next(STUBBORN))
    world.play(stop(), Wait(1))
    assert deeds(world, stop()) == ["stop 1/0"]
    assert deeds(world, Wait(10)) == ["kill 1/0", "finish"]


def test_a_stop_that_is_asked_for_again_by_the_same_client_is_no_second_one() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=5.0))
    asked = Ask((ev.StopRequested("the control API", token="a name"),))
    assert deeds(world, asked, asked, Wait(4)) == []
    assert deeds(world, Wait(1)) == ["stop 1/0", "finish"]


def test_an_immediate_stop_is_no_lame_duck_and_ends_one() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0))
    assert deeds(world, stop(immediate=True)) == ["kill 1/0", "finish"]
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0))
    assert deeds(world, stop(), Wait(1), stop(immediate=True)) == ["kill 1/0", "finish"]


def test_an_urgent_stop_is_no_lame_duck() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0))
    urgent = Ask((ev.StopRequested("the end of the supervisor", urgent=True),))
    assert deeds(world, urgent) == ["stop 1/0", "finish"]


def test_where_nobody_serves_a_stop_has_nothing_to_wait_for() -> None:
    world = World(make_spec(workers=1, lame_duck_seconds=60.0))
    world.play(Next(SLOW), hup())
    assert deeds(world, stop()) == ["1 aborted", "stop 1/0", "finish"]
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0))
    world.play(winch())
    assert deeds(world, stop()) == ["finish"]


def test_a_lame_duck_deploys_and_restarts_nothing() -> None:
    world = serving(make_spec(workers=2, lame_duck_seconds=5.0))
    world.play(Next(SLOW), hup(), Wait(1))
    assert deeds(world, stop(), Die(0), scale(4), hup(), Wait(4)) == ["2 aborted"]
    assert deeds(world, Wait(1)) == ["stop 1/1", "stop 2/0", "finish"]


def test_a_lame_duck_whose_last_worker_dies_is_over() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=60.0))
    assert deeds(world, stop(), Die(0)) == ["finish"]


def test_who_drains_goes_on_to_stop_during_the_phase() -> None:
    spec = make_spec(workers=1, lame_duck_seconds=5.0, drain_seconds=10.0)
    world = serving(spec, Crowd(3))
    world.play(hup(), Wait(1))
    assert deeds(world, stop(), Wait(2)) == ["stop 1/0"]
    assert deeds(world, Wait(3)) == ["stop 2/0", "finish"]


def test_a_new_server_knows_when_the_phase_ends() -> None:
    world = serving(make_spec(workers=1, lame_duck_seconds=5.0))
    assert deeds(world, stop(), Wait(1), LoseServer(0, away_seconds=1.0), Wait(2.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop 1/0", "finish"]


# --- workers that drain already ---


def test_a_draining_worker_is_not_asked_twice_by_the_same_signal() -> None:
    world = serving(make_spec(workers=1), Next(LINGERING))
    world.play(hup())
    assert deeds(world, stop()) == ["stop 2/0"]


def test_a_draining_worker_hears_the_stop_signal_if_it_is_another_one() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(USR1, 10))
    world = serving(spec, Next(LINGERING))
    world.play(hup())
    assert deeds(world, stop()) == ["stop 1/0", "stop 2/0"]


def test_a_stop_does_not_give_a_draining_worker_more_time() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(USR1, 10), stop=StopPolicy(TERM, 10))
    world = serving(spec, Next(STUBBORN, 2))
    world.play(hup(), Wait(4))
    assert deeds(world, stop(), Wait(6)) == ["stop 1/0", "stop 2/0", "kill 1/0"]


def test_a_stop_cuts_the_time_of_a_draining_worker() -> None:
    spec = make_spec(workers=1, retire=StopPolicy(TERM, 1000), stop=StopPolicy(TERM, 10))
    world = serving(spec, Next(STUBBORN))
    world.play(hup())
    assert deeds(world, stop(), Wait(10)) == ["stop 2/0", "kill 1/0", "finish"]


# --- the second stop ---


def test_second_stop_is_immediate_when_asked_so() -> None:
    world = serving(make_spec(workers=1), Next(STUBBORN))
    world.play(stop())
    assert deeds(world, stop(immediate=True)) == ["kill 1/0", "finish"]


def test_an_immediate_stop_kills_without_asking() -> None:
    world = serving(make_spec(workers=2))
    assert deeds(world, stop(immediate=True)) == ["kill 1/0", "kill 1/1", "finish"]


def test_an_immediate_stop_is_not_made_graceful_by_another() -> None:
    world = serving(make_spec(workers=1), Next(STUBBORN))
    assert deeds(world, Ask(stop(immediate=True).facts + stop().facts)) == ["kill 1/0", "finish"]


def test_a_second_graceful_stop_neither_asks_again_nor_prolongs() -> None:
    world = serving(make_spec(workers=1), Next(STUBBORN))
    world.play(stop(), Wait(6))
    assert deeds(world, stop(), Wait(4)) == ["kill 1/0", "finish"]


# --- stop and deploy ---


def test_a_stop_aborts_the_deploy_under_way() -> None:
    world = serving(make_spec(workers=1))
    world.play(Next(SLOW), hup())
    doings = deeds(world, stop(), Wait(5))
    assert doings == ["2 aborted", "stop 1/0", "stop 2/0", "finish"]
    assert conclusions(world)[0].reason == "stop by TERM"


def test_hup_and_stop_at_once_conclude_every_deploy() -> None:
    world = serving(make_spec(workers=1))
    world.play(Ask(hup(2).facts + stop().facts))
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED] * 2
    assert world.finished is not None


def test_a_deploy_asked_for_during_a_stop_is_not_made() -> None:
    world = serving(make_spec(workers=1), Next(LINGERING))
    world.play(stop())
    assert deeds(world, hup(), scale(5)) == []
    assert world.observed.last_generation == 1


# --- the first start ---


def test_first_start_that_fails_ends_the_service_with_the_failure() -> None:
    world = World(make_spec(workers=1))
    world.play(Next(BROKEN, 3), hup(), Wait(60))
    assert world.finished is not None
    assert world.finished.failure == "3 failures, the last: exit status 1"
    assert [end.outcome for end in conclusions(world)] == [Outcome.ABORTED]
    assert conclusions(world)[0].last_words == "last words of 3"


def test_first_start_that_fails_stops_those_that_came_up() -> None:
    world = World(make_spec(workers=2))
    world.play(Next(LINGERING), Next(BROKEN, 3), hup())
    assert deeds(world, Wait(1)) == ["start 1/1", "1 aborted", "stop 1/0"]
    assert deeds(world, Wait(5)) == ["finish"]


def test_first_generation_that_can_not_be_prepared_ends_the_service() -> None:
    world = World(make_spec())
    assert deeds(world, SpoilGenerations(1), hup()) == ["prepare 1", "1 aborted", "finish"]
    assert world.finished is not None
    assert world.finished.failure == "cannot read env: no such directory"


def test_a_stop_during_the_first_start_is_no_failure() -> None:
    world = World(make_spec(workers=1))
    world.play(Next(SLOW), hup(), stop())
    assert world.finished is not None
    assert world.finished.failure == ""


def test_a_stop_while_a_failed_first_start_ends_keeps_the_failure() -> None:
    world = World(make_spec(workers=2))
    world.play(Next(STUBBORN), Next(BROKEN, 3), hup(), Wait(1), stop(immediate=True))
    assert world.finished is not None
    assert world.finished.failure == "3 failures, the last: exit status 1"


def test_hup_before_a_failed_first_start_is_concluded_has_its_own_chance() -> None:
    world = World(make_spec(workers=1))
    world.play(Next(BROKEN, 2), hup(), hup(), Wait(60))
    assert crew(world) == {"2/0": "ready"}


def test_a_fact_that_comes_after_the_end_changes_nothing() -> None:
    world = serving(make_spec(workers=1))
    world.play(stop())
    assert deeds(world, Ask((ev.WorkerBeat(1),)), Wait(60)) == []
