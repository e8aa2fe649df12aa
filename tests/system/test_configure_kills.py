"""A server killed at any step of `sengu configure`: the next one ends where it would have ended.

As `test_kill_at_every_step`, by the same means (`strikes`).
"""

from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.jobs import ENVIRONMENT, Jobs
from tests.system.puppets import pids, wait_until
from tests.system.strikes import Strikes
from tests.system.test_configure import TELLING, configure, put, wait_for

CONFIGURE = [
    "before record ConfigureRequested",
    "after record ConfigureRequested",
    "before execute AskConfiguration",
    "after execute AskConfiguration",
    "after record ConfigureSent",
    'after send {"type":"configure"',
    "before hear the fork server Configured",
    "before take a configuration -",
    "before write a configuration -",
    "after write a configuration -",
    "before record Configured",
    "after record Configured",
    "before tell of a configuration -",
    "after tell of a configuration -",
    "after hear the fork server Configured",
    'after send {"type":"amend"',
]
START = [
    "before hear the fork server Loaded",
    "after write a configuration -",
    "after record Configured",
    "after hear the fork server Loaded",
]


class Struck(Strikes):
    """An instance of two workers whose server is killed at a step."""

    def __init__(self, sengu: Sengu, jobs: Jobs, step: str) -> None:
        super().__init__(jobs.directory, step)
        self._sengu = sengu
        self._jobs = jobs

    def start(self) -> Instance:
        return self._sengu.work(
            "jobs.py:Telling",
            "--config",
            "jobs.toml",
            cwd=self._jobs.directory,
            env={**ENVIRONMENT, **self.environment},
        )


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    made = Jobs(free_path)
    made.write(TELLING)
    put(made, "jobs.toml", "n = 1\nworkers = 2\n")
    return made


@pytest.mark.parametrize("step", CONFIGURE)
def test_when_the_configuration_is_asked_for(sengu: Sengu, jobs: Jobs, step: str) -> None:
    struck = Struck(sengu, jobs, step)
    instance = struck.start().wait_ready()
    before = pids(instance)
    put(jobs, "jobs.toml", "n = 2\nworkers = 3\ngrace = 7\n")
    struck.arm()
    assert (
        configure(instance) == "workers have the new configuration; workers 2 -> 3; grace 30 -> 7"
    )
    wait_until(struck.was_reached, "the step")
    wait_for(instance, "goes on with 2", 2)
    wait_for(instance, "begins with 2")
    wait_until(lambda: len(pids(instance)) == 3, "three workers")
    assert before < pids(instance)
    assert instance.status()["servers"] == 2
    assert configure(instance) == "nothing has changed in the configuration"
    assert sum("goes on with" in line for line in instance.lines) == 2


@pytest.mark.parametrize("step", START)
def test_when_it_is_read_for_the_first_time(sengu: Sengu, jobs: Jobs, step: str) -> None:
    struck = Struck(sengu, jobs, step)
    struck.arm()
    instance = struck.start().wait_ready()
    assert struck.was_reached()
    wait_for(instance, "begins with 1", 2)
    assert len(pids(instance)) == 2
    put(jobs, "jobs.toml", "n = 2\nworkers = 2\n")
    assert configure(instance) == "workers have the new configuration"
    wait_for(instance, "goes on with 2", 2)
