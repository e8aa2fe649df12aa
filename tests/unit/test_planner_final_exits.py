"""Exit codes after which nothing is tried again: who is replaced none the less, and what ends."""

import pytest

from sengu.model.observed import Outcome
from sengu.model.service import RestartPolicy, Rolling, ServiceSpec
from tests.unit.support_steps import (
    FINAL,
    FINISHED,
    HEALTHY,
    Fate,
    Next,
    Wait,
    WearOut,
    hup,
    make_application_spec,
    make_spec,
    scale,
    stop,
    winch,
)
from tests.unit.support_views import conclusions, crew, deeds, serving
from tests.unit.support_world import World

ENDS_IN_5 = Fate(dies_after=5.0, dies_with=FINAL)
CRASHES_IN_5 = Fate(dies_after=5.0)


def make(ends_at_once: bool = False, **changes: object) -> ServiceSpec:
    restart = RestartPolicy(1.0, final_codes=(7, FINAL), ends_at_once=ends_at_once)
    return make_spec(restart=restart, **changes)


def exit_code(world: World) -> int | None:
    return world.observed.stop.exit_code if world.observed.stop else None


def test_a_worker_that_has_ended_for_good_is_not_replaced_and_the_others_go_on() -> None:
    world = serving(make(), Next(ENDS_IN_5))
    assert deeds(world, Wait(100)) == []
    assert crew(world) == {"1/1": "ready"}


def test_another_code_is_a_crash_as_ever() -> None:
    world = serving(make(), Next(CRASHES_IN_5))
    assert deeds(world, Wait(5)) == ["start 1/0"]


def test_without_such_codes_no_exit_is_final() -> None:
    world = serving(make_spec(), Next(ENDS_IN_5))
    assert deeds(world, Wait(5)) == ["start 1/0"]


@pytest.mark.parametrize("order", [(5.0, 9.0), (9.0, 5.0)])
def test_with_the_last_worker_the_service_ends_with_its_code(order: tuple[float, float]) -> None:
    fates = [Fate(dies_after=after, dies_with=FINAL if after > 5 else 7) for after in order]
    world = serving(make(), *map(Next, fates))
    assert deeds(world, Wait(8.9)) == []
    assert deeds(world, Wait(0.1)) == [f"end with {FINAL}", "finish"]
    assert exit_code(world) == FINAL
    assert world.finished is not None
    assert world.finished.failure == ""  # it did come up


def test_the_first_such_exit_ends_the_service_where_that_is_wanted_and_the_others_may_finish() -> (
    None
):
    finishes = Fate(exits_after=3.0)
    world = serving(make(ends_at_once=True), Next(ENDS_IN_5), Next(finishes))
    assert deeds(world, Wait(5)) == [f"end with {FINAL}", "stop 1/1"]
    assert deeds(world, Wait(3)) == ["finish"]
    assert exit_code(world) == FINAL


def test_it_has_no_lame_duck_phase() -> None:
    world = serving(make(ends_at_once=True, lame_duck_seconds=60.0), Next(ENDS_IN_5))
    assert deeds(world, Wait(5)) == [f"end with {FINAL}", "stop 1/1", "finish"]


def test_a_worker_that_is_being_stopped_may_exit_as_it_likes() -> None:
    parting = Fate(dies_after=6.0, exits_after=10.0, dies_with=FINAL)
    world = serving(make(ends_at_once=True), Next(HEALTHY), Next(parting))
    assert deeds(world, scale(1), Wait(20)) == ["stop 1/1"]
    assert crew(world) == {"1/0": "ready"}


def test_a_worker_that_ends_so_before_the_verdict_aborts_the_deploy_without_another_attempt() -> (
    None
):
    for ends_at_once in (False, True):
        world = serving(make(ends_at_once))
        assert deeds(world, Next(FINISHED), hup(), Wait(100)) == [
            "prepare 2",
            "start 2/0",
            "2 aborted",
            "retire 2",
        ]
        assert [one.reason for one in conclusions(world)] == [f"exit status {FINAL}"]
        assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_rolling_deploy_is_rolled_back_by_it() -> None:
    spec = make(ends_at_once=True, strategy=Rolling(max_surge=1), workers=3)
    world = serving(spec)
    world.play(Next(HEALTHY, 2), Next(FINISHED), hup(), Wait(100))
    assert [one.outcome for one in conclusions(world)] == [Outcome.ROLLED_BACK]
    assert crew(world) == {"1/0": "ready", "1/1": "ready", "1/2": "ready"}


def test_the_first_generation_takes_the_service_with_it_and_the_code_is_told() -> None:
    world = World(make())
    assert deeds(world, Next(FINISHED), hup(), Wait(1))[-2:] == ["stop 1/1", "finish"]
    assert world.finished is not None
    assert world.finished.failure == f"exit status {FINAL}"
    assert exit_code(world) == FINAL


def test_while_a_deploy_is_under_way_its_outcome_decides() -> None:
    world = serving(make(ends_at_once=True), Next(ENDS_IN_5, 2))
    world.play(Next(Fate(ready_after=10.0)), hup())
    assert deeds(world, Wait(9.9)) == []
    assert crew(world) == {"2/0": "starting"}
    world.play(Wait(1))
    assert crew(world) == {"2/0": "ready", "2/1": "ready"}
    assert exit_code(world) is None


def test_if_that_deploy_fails_the_service_ends_none_the_less() -> None:
    world = serving(make(), Next(ENDS_IN_5, 2))
    world.play(Next(Fate(ready_after=None, dies_after=10.0), 3), hup())
    assert deeds(world, Wait(100))[-3:] == ["2 aborted", f"end with {FINAL}", "finish"]


def test_a_deploy_fills_every_slot_again() -> None:
    world = serving(make(), Next(ENDS_IN_5))
    world.play(Wait(10), hup())
    assert crew(world) == {"2/0": "ready", "2/1": "ready"}


def test_who_asks_for_workers_gets_them_also_where_one_had_ended() -> None:
    world = serving(make(), Next(ENDS_IN_5))
    world.play(Wait(10))
    assert deeds(world, scale(3)) == ["start 1/0", "start 1/2"]
    world.play(scale(1))
    assert crew(world) == {"1/0": "ready"}


def test_a_worn_worker_is_replaced_though_another_slot_is_closed() -> None:
    spec = make_application_spec(restart=RestartPolicy(1.0, final_codes=(FINAL,)))
    world = serving(spec, Next(ENDS_IN_5))
    world.play(Wait(10))
    assert deeds(world, WearOut(0)) == ["start 1/1", "stop 1/1"]
    assert crew(world) == {"1/1": "ready"}


def test_the_rest_of_a_service_is_not_its_end() -> None:
    world = serving(make(ends_at_once=True))
    assert deeds(world, winch(), Wait(100)) == ["stop 1/0", "stop 1/1"]
    assert exit_code(world) is None


def test_a_stop_that_was_asked_for_keeps_its_exit_code() -> None:
    world = serving(make(ends_at_once=True), Next(Fate(dies_after=5.0, dies_with=FINAL)))
    world.play(Wait(4), stop(), Wait(100))
    assert world.finished is not None
    assert exit_code(world) is None
