"""The rules of commands that run before a generation is prepared.

None ever runs twice or beside another: the fake world does not let it (`Outside.run_command`).
"""

from sengu.model import actions as do
from sengu.model.observed import Outcome
from tests.unit.support_histories import in_every_history
from tests.unit.support_steps import (
    Command,
    LoseForkServers,
    LoseServer,
    Wait,
    hup,
    make_application_spec,
    make_spec,
    stop,
)
from tests.unit.support_views import changes, conclusions, crew, deeds, serving
from tests.unit.support_world import World

TWO = (("one",), ("two", "words"))
SPEC = make_spec(workers=1, pre_deploy=TWO, pre_deploy_seconds=60.0)
NOBODY_WAITS = ["stop the command of 2", "2 superseded"]


def test_commands_run_one_after_the_other_before_the_generation_is_prepared() -> None:
    world = World(SPEC)
    assert deeds(world, Command(5), Command(3), hup(), Wait(4.9)) == ["run 1/0"]
    assert deeds(world, Wait(0.1)) == ["run 1/1"]
    assert deeds(world, Wait(3)) == ["prepare 1", "start 1/0", "1 succeeded"]


def test_each_generation_has_its_own_run_of_them() -> None:
    world = serving(SPEC)
    world.play(hup(), hup())
    assert world.commands_run == [(g, step) for g in (1, 2, 3) for step in (0, 1)]


def test_one_that_fails_aborts_the_deploy_and_those_after_it_do_not_run() -> None:
    world = serving(SPEC)
    assert deeds(world, Command(5, fails=True), hup(), Wait(5)) == [
        *("run 2/0", "2 aborted", "retire 2")
    ]
    verdict = conclusions(world)[0]
    assert verdict.reason == "--pre-deploy 'command' ended with exit status 1"
    assert verdict.last_words == "words of the command"
    assert crew(world) == {"1/0": "ready"}


def test_the_first_that_fails_ends_the_service() -> None:
    world = World(SPEC)
    world.play(Command(1, fails=True), hup(), Wait(1))
    assert world.finished is not None
    assert world.finished.failure == "--pre-deploy 'command' ended with exit status 1"


def test_one_that_takes_too_long_is_asked_to_stop_and_then_killed() -> None:
    world = serving(SPEC)
    steps = (Command(None, exits_after=None), hup(), Wait(60))
    assert deeds(world, *steps) == ["run 2/0", "stop the command of 2"]
    assert deeds(world, Wait(9.9)) == []
    assert deeds(world, Wait(0.1)) == ["kill the command of 2", "2 aborted", "retire 2"]
    assert conclusions(world)[0].reason == "--pre-deploy 'command' was not done within 60 s"


def test_one_that_was_asked_to_stop_has_failed_however_it_ends() -> None:
    world = serving(SPEC)
    world.play(Command(61, exits_after=None), hup(), Wait(61))
    assert crew(world) == {"1/0": "ready"}
    assert world.observed.current == 1
    assert world.observed.deploy is None


def test_the_time_of_the_one_before_it_does_not_count() -> None:
    world = serving(SPEC)
    assert deeds(world, Command(40), Command(40), hup(), Wait(80))[-1] == "retire 1"


def test_the_next_deploy_waits_for_the_end_of_the_one_that_it_has_superseded() -> None:
    world = serving(SPEC)
    steps = (Command(None, exits_after=5), hup(), Wait(1), hup())
    assert deeds(world, *steps) == ["run 2/0", *NOBODY_WAITS]
    assert deeds(world, Wait(4.9)) == []
    assert deeds(world, Wait(0.1))[:4] == ["run 3/0", "retire 2", "run 3/1", "prepare 3"]
    assert conclusions(world)[-1].outcome is Outcome.SUCCEEDED


def test_a_service_that_is_stopped_waits_for_it_within_its_grace() -> None:
    world = serving(SPEC)
    steps = (Command(None, exits_after=None), hup(), Wait(1), stop(), Wait(9))
    assert deeds(world, *steps) == ["run 2/0", "stop the command of 2", "2 aborted", "stop 1/0"]
    assert deeds(world, Wait(1)) == ["kill the command of 2", "finish"]


def test_an_immediate_stop_kills_it() -> None:
    world = serving(SPEC)
    steps = (Command(None), hup(), Wait(1), stop(immediate=True))
    assert deeds(world, *steps)[1:] == [
        *("kill the command of 2", "2 aborted", "kill 1/0", "finish")
    ]


def test_they_do_not_run_again_when_a_fork_server_is_brought_back() -> None:
    spec = make_application_spec(workers=1, pre_deploy=TWO)
    world = serving(spec)
    world.play(LoseForkServers(), Wait(100))
    assert "run" not in " ".join(deeds(world, hup(), LoseForkServers(), Wait(10))[3:])


def test_one_that_ends_while_no_server_is_there_is_not_run_again() -> None:
    world = serving(SPEC)
    world.play(Command(5), hup(), Wait(1))
    assert deeds(world, LoseServer(away_seconds=10))[:2] == ["run 2/1", "prepare 2"]


def test_one_that_goes_on_without_a_server_has_its_time_from_its_start_on() -> None:
    world = serving(SPEC)
    world.play(Command(None), hup(), Wait(50), LoseServer(away_seconds=5))
    assert deeds(world, Wait(4.9)) == []
    assert deeds(world, Wait(0.1)) == ["stop the command of 2", "2 aborted", "retire 2"]


@in_every_history
def test_no_command_runs_without_the_one_before_it(world: World) -> None:
    run = world.commands_run
    assert all((generation, number - 1) in run for generation, number in run if number)


@in_every_history
def test_no_worker_is_started_before_the_commands_of_its_generation_are_done(world: World) -> None:
    for change in changes(world):
        if isinstance(change.action, do.StartWorker):
            generation = change.before.generations[change.action.generation]
            assert generation.steps_done == len(world.spec.pre_deploy)
