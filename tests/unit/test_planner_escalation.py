"""Who does not go at the first signal is asked by others, each at its time, before KILL."""

import msgspec

from sengu.model.service import StopPolicy, Urge
from tests.unit.support_steps import (
    QUIT,
    RELUCTANT,
    SILENT,
    STUBBORN,
    TERM,
    USR1,
    LoseServer,
    Next,
    Stall,
    Wait,
    hup,
    make_spec,
    stop,
)
from tests.unit.support_views import deeds, serving
from tests.unit.support_world import World

PATIENT = StopPolicy(TERM, 10.0, (Urge(QUIT, 3.0), Urge(USR1, 6.0)))


def make(**changes: object) -> World:
    return serving(make_spec(workers=1, stop=PATIENT, retire=PATIENT, **changes), Next(STUBBORN))


def test_each_signal_comes_in_its_time_and_kill_at_the_end() -> None:
    world = make()
    assert deeds(world, stop(), Wait(2.9)) == ["stop 1/0"]
    assert deeds(world, Wait(0.1)) == ["urge 1/0"]
    assert deeds(world, Wait(2.9)) == []
    assert deeds(world, Wait(0.1)) == ["urge 1/0"]
    assert deeds(world, Wait(3.9)) == []
    assert deeds(world, Wait(0.1)) == ["kill 1/0", "finish"]


def test_who_goes_at_the_second_signal_is_not_killed() -> None:
    spec = make_spec(workers=1, stop=PATIENT)
    world = serving(spec, Next(RELUCTANT))
    assert deeds(world, stop(), Wait(3)) == ["stop 1/0", "urge 1/0", "finish"]


def test_old_workers_of_a_deploy_are_urged_too() -> None:
    world = make()
    world.play(hup())
    assert deeds(world, Wait(10)) == ["urge 1/0", "urge 1/0", "kill 1/0", "retire 1"]


def test_so_is_one_that_does_not_get_ready() -> None:
    world = World(make_spec(workers=1, stop=PATIENT))
    world.play(Next(SILENT, 3), hup())
    stopped = deeds(world, Wait(20))
    assert stopped[:1] == ["stop 1/0"]
    world = World(make_spec(workers=1, stop=PATIENT))
    mute = msgspec.structs.replace(SILENT, exits_after=None)
    world.play(Next(mute, 3), hup(), Wait(20))
    assert deeds(world, Wait(3))[:1] == ["urge 1/0"]


def test_the_end_of_the_service_asks_an_old_worker_by_its_own_signals() -> None:
    retire = StopPolicy(USR1, 100.0, (Urge(QUIT, 50.0),))
    world = serving(make_spec(workers=1, stop=PATIENT, retire=retire), Next(STUBBORN))
    world.play(hup())
    assert deeds(world, stop(), Wait(10)) == [
        "stop 1/0",
        "stop 2/0",
        "urge 1/0",
        "urge 1/0",
        "kill 1/0",
        "finish",
    ]


def test_an_end_after_the_same_signal_neither_begins_anew_nor_lasts_longer() -> None:
    world = make()
    world.play(hup(), Wait(5))
    assert deeds(world, stop(), Wait(5)) == ["stop 2/0", "urge 1/0", "kill 1/0", "finish"]


def test_a_server_that_has_slept_urges_nobody_whom_it_is_to_kill() -> None:
    world = make()
    world.play(stop())
    assert deeds(world, Stall(20)) == ["kill 1/0", "finish"]


def test_a_new_server_goes_on_where_the_last_one_was() -> None:
    world = make()
    world.play(stop(), Wait(4))
    assert deeds(world, LoseServer(), Wait(6)) == ["urge 1/0", "kill 1/0", "finish"]
