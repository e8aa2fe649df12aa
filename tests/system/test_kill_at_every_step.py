"""A server killed at any step: the next one ends where it would have ended itself.

Each row of a table is a step of the scenario, at which its server is killed once (`strikes`). A
step that is not reached is a failure.
"""

import signal
from collections import Counter
from typing import Any

import pytest

from tests.chaos.orders import ask
from tests.support import Event, Instance, Sengu
from tests.system.puppets import kill, wait_until
from tests.system.strikes import Strikes
from tests.system.web import ENVIRONMENT, Site

WORKERS = 2

Places = dict[tuple[int, int], int]  # how many workers each generation and slot has had


def both(generation: int, times: int = 1) -> Places:
    return {(generation, slot): times for slot in range(WORKERS)}


class Run(Strikes):
    """An instance whose server dies at the steps."""

    def __init__(self, sengu: Sengu, site: Site, *steps: str) -> None:
        super().__init__(site.directory, *steps)
        self.files = [site.directory / "pid", site.directory / "socket"]
        self._sengu = sengu
        self._site = site

    def start(self, setting: str = "", *options: str) -> Instance:
        pid_file, socket_file = self.files
        unix = () if "--reuseport" in options else ("--listen", f"unix:{socket_file}")
        return self._sengu.serve(
            *("plain:app", "--listen", "127.0.0.1:0", *unix),
            *("--workers", str(WORKERS), "--pid-file", str(pid_file), *options),
            cwd=self._site.directory,
            env={**ENVIRONMENT, **self.environment, "SENGU_SETTINGS": setting},
        )


def settled(instance: Instance, generation: int, workers: int) -> dict[str, Any]:
    """The status when so many workers of the generation are ready, and there is nobody else."""
    status: dict[str, Any] = {}

    def look() -> bool:
        status.update(ask(instance, "GET", "/v1/status").body)
        rows = [(row["generation"], row["state"]) for row in status["workers"]]
        return rows == [(generation, "ready")] * workers and status["state"] == "serving"

    wait_until(look, f"{workers} workers of generation {generation}")
    return status


def told(instance: Instance, last: int) -> list[Event]:
    """All events up to the last one."""
    events = []
    for event in instance.events():
        events.append(event)
        if event["id"] == last:
            return events
    raise AssertionError(f"event {last} was not told, but {events}")


def check(run: Run, instance: Instance, generation: int, places: Places) -> list[Event]:
    """All is as if nobody had been killed."""
    workers = len([place for place in places if place[0] == generation])
    status = settled(instance, generation, workers)
    assert run.was_reached()
    events = told(instance, status["last_event"])
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    started = [event for event in events if event["type"] == "worker_started"]
    assert Counter((event["generation"], event["slot"]) for event in started) == places
    finish(run, instance)
    return events


def finish(run: Run, instance: Instance) -> None:
    assert instance.stop() == 0
    assert not any(file.exists() for file in run.files)
    # The fixture sees that nothing else is left.


START = [
    "before bind -",
    "after bind -",
    "after send hold=listener/0",
    "after send hold=journal",
    "after pid file -",
    "after say ready -",
    "after record DeployRequested",
    "after execute PrepareGeneration",
    "after record GenerationPreparing",
    "after send spawn=forkserver",
    "before hear the fork server Loaded",
    "after hear the fork server Loaded",
    "after execute StartWorker",
    "after record WorkerRequested",
    "after send hold=notify",
    "after order a worker -",
    "before hear of a birth -",
    "after record WorkerStarted",
    "before hear the worker -",
    "after hear the worker -",
    "after execute ConcludeDeploy",
    "after record DeployConcluded",
    "before tell the world -",
]
DEPLOY = [
    "before record DeployRequested",
    "after record DeployRequested",
    "after record GenerationPreparing",
    "after hear the fork server Loaded",
    "after order a worker -",
    "after record WorkerStarted",
    "after hear the worker -",
    "before record DeployConcluded",
    "after record DeployConcluded",
    "after execute StopWorker",
    "after record WorkerStopping",
    "before hear of an exit -",
    "after hear of an exit -",
    "after send reap=worker",
    "before hear of the end -",
    "after record WorkerExited",
    "after record WorkerExited 2",
    "after execute RetireGeneration",
    "after record GenerationRetired",
    "after send drop=environment",
]
COMMAND = [
    "before record StepStarted",
    "after record StepStarted",
    "after send spawn=predeploy",
    "before hear of a command -",
    "after record StepEnded",
    "after send reap=predeploy",
    "after record StepEnded 2",
    "after execute PrepareGeneration",
]
SCALE = ["before record ScaleRequested", "after record ScaleRequested"]
CRASH = [
    "before hear of an exit -",
    "after record WorkerExited",
    "after send reap=worker",
    "before hear of the end -",
    "after execute StartWorker",
    "after record WorkerRequested",
    "after order a worker -",
    "before hear of a birth -",
    "after record WorkerStarted",
    "after hear the worker -",
]
SIGNAL = [
    "before hear a signal -",
    "after record ScaleAdjusted",
    "after hear a signal -",
    "after send heard=",
]
SCALE_DOWN = ["after record ScaleAdjusted", "after execute StopWorker", "before hear of an exit -"]
STOP = [
    "after record StopRequested",
    "after execute StopWorker",
    "after execute StopWorker 2",
    "after record WorkerStopping",
    "before hear of an exit -",
    "after send reap=worker",
    "before hear of the end - 2",
    "after record WorkerExited",
    "after execute FinishService",
    "before record ServiceStopped",
    "after record ServiceStopped",
    "before let go -",
    "after let go -",
    "before send end=",
    "after send end=",
]
UPGRADE = [
    "after record UpgradeRequested",
    "after send upgrade",
    "after send paused",
    "before look around -",
    "before say ready -",
    "after say ready -",
    "after record ServerAdopted",
    "after record Upgraded",
]
SNAPSHOT = ["after new journal -", "after send hold=journal", "after send hold=journal 3"]
SHORT_JOURNAL = "sengu.server.journal:_LONG_BYTES 100"
ADOPTION = ["after look around -", "before adopt -", "after record ServerAdopted", "after adopt -"]


def armed(sengu: Sengu, site: Site, *steps: str, setting: str = "") -> tuple[Run, Instance]:
    """A run whose instance is ready, and will be struck from now on."""
    run = Run(sengu, site, *steps)
    instance = run.start(setting).wait_ready()
    run.arm()
    return run, instance


@pytest.mark.parametrize("step", START)
def test_at_its_start(sengu: Sengu, site: Site, step: str) -> None:
    run = Run(sengu, site, step)
    run.arm()
    check(run, run.start().wait_ready(), 1, both(1))


@pytest.mark.parametrize("step", DEPLOY)
def test_in_a_deploy(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    assert ask(instance, "POST", "/v1/reload", {"token": "one"}).status == 202
    check(run, instance, 2, both(1) | both(2))


@pytest.mark.parametrize("step", COMMAND)
def test_when_commands_run_before_a_generation(sengu: Sengu, site: Site, step: str) -> None:
    run, noted = Run(sengu, site, step), site.directory / "noted"
    command = f"sh -c 'echo $0 $SENGU_GENERATION >>{noted}'"
    options = ("--pre-deploy", f"{command} one", "--pre-deploy", f"{command} two")
    instance = run.start("", *options).wait_ready()
    run.arm()
    assert ask(instance, "POST", "/v1/reload", {"token": "one"}).status == 202
    check(run, instance, 2, both(1) | both(2))
    assert noted.read_text().split("\n") == ["one 1", "two 1", "one 2", "two 2", ""]


@pytest.mark.parametrize("step", SCALE)
def test_when_it_is_asked_for_more_workers(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    assert ask(instance, "POST", "/v1/scale", {"workers": 3}).status == 202
    check(run, instance, 1, both(1) | {(1, 2): 1})


@pytest.mark.parametrize("step", SIGNAL)
def test_when_a_signal_asks_for_one_worker_more(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    instance.signal(signal.SIGTTIN)
    wait_until(run.was_reached)
    check(run, instance, 1, both(1) | {(1, 2): 1})


@pytest.mark.parametrize("step", SCALE_DOWN)
def test_when_a_signal_asks_for_one_worker_less(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    instance.signal(signal.SIGTTOU)
    wait_until(run.was_reached)
    settled(instance, 1, 1)
    finish(run, instance)


def kill_one(instance: Instance) -> None:
    (victim,) = [row["pid"] for row in instance.status()["workers"] if row["slot"] == 0]
    kill(victim)


@pytest.mark.parametrize("step", CRASH)
def test_when_a_worker_has_crashed(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    kill_one(instance)
    wait_until(run.was_reached)
    check(run, instance, 1, both(1) | {(1, 0): 2})


@pytest.mark.parametrize("step", SNAPSHOT)
def test_when_the_journal_is_begun_anew(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step, setting=SHORT_JOURNAL)
    assert ask(instance, "POST", "/v1/reload", {"token": "one"}).status == 202
    check(run, instance, 2, both(1) | both(2))


@pytest.mark.parametrize("step", ADOPTION)
def test_when_it_takes_over_from_another(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, "before hear of an exit -", step)
    kill_one(instance)
    wait_until(run.was_reached)
    check(run, instance, 1, both(1) | {(1, 0): 2})


@pytest.mark.parametrize("step", UPGRADE)
def test_in_an_upgrade(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    assert ask(instance, "POST", "/v1/upgrade", {"token": "one"}).status == 202
    ended = instance.wait_event(lambda event: event["type"] in ("upgraded", "upgrade_failed"))
    wait_until(run.was_reached)
    events = check(run, instance, 1, both(1))
    ends = [e["type"] for e in events if e["type"] in ("upgraded", "upgrade_failed")]
    assert ends == [ended["type"]]


@pytest.mark.parametrize("step", STOP)
def test_in_a_stop(sengu: Sengu, site: Site, step: str) -> None:
    run, instance = armed(sengu, site, step)
    finish(run, instance)
    assert run.was_reached()
