"""Chaos, a short run that is always the same; `make chaos` makes long ones."""

import signal
import time

import pytest

from tests.chaos.driver import start
from tests.chaos.load import Load
from tests.chaos.plan import Planner, Role
from tests.chaos.scenario import run
from tests.chaos.tree import below, of_role
from tests.processes import wait_gone
from tests.support import Sengu
from tests.system.puppets import Clients, Script, kill, pids
from tests.system.puppets import start as start_puppets

_SEED = 7
_KILLS = 40
_WORKERS = 3
_GRACE_SECONDS = 10


def test_after_kills_stops_and_orders_at_random_all_accounts_are_right() -> None:
    lines: list[str] = []
    outcome = run(_SEED, _KILLS, _WORKERS, lines.append)
    assert outcome.problems == [], outcome.summary


def test_the_same_seed_gives_the_same_steps() -> None:
    steps = list(Planner(_SEED, _KILLS, _WORKERS).steps())
    assert steps == list(Planner(_SEED, _KILLS, _WORKERS).steps())
    assert steps != list(Planner(_SEED + 1, _KILLS, _WORKERS).steps())


@pytest.mark.parametrize("also", [(), (Role.SERVER,), (Role.SERVER, Role.FORK_SERVER)])
def test_when_the_supervisor_is_killed_all_finish_what_they_have_and_are_gone(
    sengu: Sengu, port: int, also: tuple[Role, ...]
) -> None:
    instance = start(sengu, port, _WORKERS, "--grace", str(_GRACE_SECONDS))
    with Load(port, clients=3) as load:
        load.wait_for_answers(100)
        tree = {process.pid for process in below(instance.pid)}
        others = [process.pid for role in also for process in of_role(instance.pid, role)]
        killed_at = time.monotonic()
        for pid in (instance.pid, *others):
            kill(pid)
        assert not wait_gone(tree, _GRACE_SECONDS)
    assert load.wrong == []
    assert [failure for failure in load.failures if failure.failed_at < killed_at] == []


@pytest.mark.parametrize("policy", ["stop", "keep"])
def test_when_the_supervisor_of_programs_is_killed_they_end_or_stay_as_asked_for(
    sengu: Sengu, port: int, script: Script, policy: str
) -> None:
    options = ("--workers", "2", "--on-server-loss", policy, "--grace", str(_GRACE_SECONDS))
    instance = start_puppets(sengu, port, script, *options)
    workers = pids(instance)
    tree = {process.pid for process in below(instance.pid)}
    with Clients(port) as clients:
        clients.wait_for_answers()
        if policy == "keep":
            kill(instance.pid)
            assert not wait_gone(tree - workers, _GRACE_SECONDS)
            assert {answer.pid for answer in clients.wait_for_answers()} <= workers
    # Who is asked to stop finishes what it has, but others wait in the queue, which ends with it.
    if policy == "keep":
        for pid in workers:
            kill(pid, signal.SIGTERM)
    else:
        kill(instance.pid)
    assert not wait_gone(tree, _GRACE_SECONDS)
