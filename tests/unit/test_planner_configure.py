"""The rules of configurations: who is asked to read one, and what comes of the answer."""

from typing import Any

import msgspec

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.observed import Inquiry
from sengu.model.service import Pacing
from sengu.planner import initial, reduce
from tests.unit.support_steps import (
    Ask,
    Loading,
    LoseForkServers,
    LoseServer,
    Wait,
    configure,
    hup,
    make_application_spec,
    make_spec,
    scale,
    winch,
)
from tests.unit.support_views import crew, deeds, serving
from tests.unit.support_world import Change, World


def read(generation: int = 1, **fields: Any) -> Ask:
    return Ask((ev.Configured(generation, True, **fields),))


def world_of(**changes: Any) -> World:
    return serving(make_application_spec(**changes))


def facts(world: World, kind: type[ev.Event]) -> list[Any]:
    found = (line.fact for line in world.record if isinstance(line, Change))
    return [fact for fact in found if isinstance(fact, kind)]


def test_the_fork_server_is_asked_once_and_the_answer_ends_it() -> None:
    world = world_of()
    assert deeds(world, configure(), Wait(1)) == ["configure 1"]
    assert world.observed.generations[1].inquiry is None
    assert deeds(world, Wait(100)) == []


def test_what_is_asked_twice_at_once_is_asked_once() -> None:
    world = world_of()
    assert deeds(world, configure(2)) == ["configure 1"]
    assert world.observed.inquiries == 2


def test_of_two_questions_the_later_is_asked_though_the_earlier_is_answered_meanwhile() -> None:
    spec = make_application_spec()
    observed = serving(spec).observed
    for fact in (
        ev.ConfigureRequested("test"),
        ev.ConfigureSent(1, 1),
        ev.ConfigureRequested("test"),
        ev.Configured(1, True, inquiry=1),
    ):
        observed = reduce(spec, observed, fact, 1.0)
    assert observed.generations[1].inquiry == Inquiry(2)


def test_a_program_and_an_application_without_a_configuration_are_not_asked() -> None:
    bare = make_application_spec()
    assert bare.application is not None
    application = msgspec.structs.replace(bare.application, is_configured=False)
    for spec in (make_spec(), msgspec.structs.replace(bare, application=application)):
        world = serving(spec)
        assert deeds(world, configure(), Wait(1)) == []
        assert world.observed.inquiries == 0


def test_a_fork_server_that_is_gone_is_replaced_and_what_that_one_reads_is_the_answer() -> None:
    world = world_of()
    world.play(LoseForkServers())
    assert deeds(world, Loading(1.0), configure(), Wait(0.5)) == ["prepare 1"]
    prepare = next(
        line.action
        for line in world.record
        if isinstance(line, Change) and isinstance(line.action, do.PrepareGeneration)
    )
    assert prepare.inquiry == 1
    assert deeds(world, read(inquiry=1), Wait(1)) == []


def test_a_fork_server_that_dies_of_the_question_is_asked_again_when_it_is_back() -> None:
    world = world_of()
    world._outside.is_reading = False
    assert deeds(world, configure()) == ["configure 1"]
    world._outside.is_reading = True
    assert deeds(world, LoseForkServers(), Wait(1)) == ["prepare 1", "configure 1"]
    assert world.observed.generations[1].inquiry is None


def test_one_that_can_not_be_loaded_again_ends_the_question() -> None:
    world = world_of()
    world.play(LoseForkServers(), Loading(0.0, fails=True), configure(), Wait(1))
    assert world.observed.generations[1].inquiry is None
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_who_does_not_answer_in_time_is_given_up_and_another_started_for_the_next_question() -> (
    None
):
    world = world_of()
    world._outside.is_reading = False
    timeout = world.spec.boot.timeout_seconds
    assert deeds(world, configure(), Wait(timeout - 1)) == ["configure 1"]
    assert deeds(world, Wait(1)) == ["give up configuring 1"]
    (failed,) = facts(world, ev.ConfigureFailed)
    assert failed.problem == f"it was not read within {timeout:g} s"
    world._outside.is_reading = True
    assert deeds(world, configure(), Wait(1))[0] == "prepare 1"
    assert crew(world) == {"1/0": "ready", "1/1": "ready"}


def test_a_generation_on_its_way_that_may_have_read_it_before_is_asked_too() -> None:
    world = world_of()
    world.play(Loading(5.0), hup(), Wait(1), configure(), Wait(1))
    assert deeds(world, Wait(4))[:1] == ["configure 2"]


def test_a_server_that_is_lost_at_any_step_leaves_no_question_open() -> None:
    for after in range(8):
        world = world_of()
        world.play(LoseServer(after), configure(), Wait(1))
        world.play(Wait(world.spec.boot.timeout_seconds))
        assert world.observed.generations[1].inquiry is None, after
        assert crew(world) == {"1/0": "ready", "1/1": "ready"}, after


def test_workers_are_scaled_when_their_number_has_changed_and_else_a_scale_holds() -> None:
    world = world_of()
    world.play(read(workers=3, settings={"workers": 3}), Wait(1))
    assert len(crew(world)) == 3
    world.play(scale(1), Wait(1), read(settings={"workers": 3}), Wait(1))
    assert world.observed.wanted == 1
    assert world.observed.settings == {"workers": 3}


def test_a_service_that_rests_is_not_woken_but_wakes_with_so_many() -> None:
    world = world_of()
    world.play(winch(), Wait(1), read(workers=3), Wait(1))
    assert crew(world) == {}
    world.play(hup(), Wait(1))
    assert len(crew(world)) == 3


def test_the_pace_of_a_generation_is_what_its_configuration_says() -> None:
    spec = make_application_spec()
    pacing = Pacing(kill_old_delay_seconds=7.0)
    observed = reduce(spec, serving(spec).observed, ev.Configured(1, True, pacing=pacing), 1.0)
    assert observed.generations[1].pacing == pacing


def test_of_a_generation_that_is_gone_nothing_is_learnt() -> None:
    spec = make_application_spec()
    observed = initial(spec)
    assert reduce(spec, observed, ev.Configured(7, True, workers=9), 1.0) == observed
