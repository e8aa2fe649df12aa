"""A server killed at any step of `sengu configure`: the next one ends where it would have ended.

As `test_kill_at_every_step`, by the same means (`faults`).
"""

from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system import faults
from tests.system.faults.sitecustomize import file_name
from tests.system.jobs import ENVIRONMENT, Jobs
from tests.system.puppets import pids, wait_until
from tests.system.test_configure import TELLING, configure, put, wait_for

RECORD = "sengu.server.journal:Journal.write"
TAKE = "sengu.server.configurations:Configurations.take"
SERVER_SEND = "sengu.posix.packets:send"
READ = "sengu.server.forkservers:ForkServer._heed"
EXECUTE = "sengu.server.execute:Executor.execute"
WRITE = "sengu.posix.swap_file:SwapFile.write"
TELL = "sengu.server.crew:Crew.tell_configured"

CONFIGURE = [
    f"before {RECORD} ConfigureRequested 1",
    f"after {RECORD} ConfigureRequested 1",
    f"before {EXECUTE} AskConfiguration 1",
    f"after {EXECUTE} AskConfiguration 1",
    f"after {RECORD} ConfigureSent 1",
    f'after {SERVER_SEND} {{"type":"configure" 1',
    f"before {READ} Configured 1",
    f"before {TAKE} - 1",
    f"before {WRITE} - 1",
    f"after {WRITE} - 1",
    f"before {RECORD} Configured 1",
    f"after {RECORD} Configured 1",
    f"before {TELL} - 1",
    f"after {TELL} - 1",
    f"after {READ} Configured 1",
    f'after {SERVER_SEND} {{"type":"amend" 1',
]
START = [
    f"before {READ} Loaded 1",
    f"after {WRITE} - 1",
    f"after {RECORD} Configured 1",
    f"after {READ} Loaded 1",
]


class Struck:
    """An instance of two workers whose server is killed at a step."""

    def __init__(self, sengu: Sengu, jobs: Jobs, fault: str) -> None:
        self._armed = jobs.directory / "armed"
        self._armed.mkdir()
        self._fault = fault
        self._sengu = sengu
        self._jobs = jobs

    def start(self) -> Instance:
        environment = {
            **ENVIRONMENT,
            "PYTHONPATH": str(Path(faults.__file__).parent),
            "SENGU_FAULTS": self._fault,
            "SENGU_FAULTS_ARMED": str(self._armed),
        }
        return self._sengu.work(
            "jobs.py:Telling",
            "--config",
            "jobs.toml",
            cwd=self._jobs.directory,
            env=environment,
        )

    def arm(self) -> None:
        (self._armed / file_name(self._fault)).touch()

    def was_reached(self) -> bool:
        return not list(self._armed.iterdir())


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    made = Jobs(free_path)
    made.write(TELLING)
    put(made, "jobs.toml", "n = 1\nworkers = 2\n")
    return made


@pytest.mark.parametrize("fault", CONFIGURE)
def test_when_the_configuration_is_asked_for(sengu: Sengu, jobs: Jobs, fault: str) -> None:
    struck = Struck(sengu, jobs, fault)
    instance = struck.start().wait_ready()
    before = pids(instance)
    put(jobs, "jobs.toml", "n = 2\nworkers = 3\ngrace = 7\n")
    struck.arm()
    configure(instance)
    wait_until(struck.was_reached, "the step")
    wait_for(instance, "goes on with 2", 2)
    wait_for(instance, "begins with 2")
    wait_until(lambda: len(pids(instance)) == 3, "three workers")
    assert before < pids(instance)
    assert instance.status()["servers"] == 2
    assert configure(instance) == "nothing has changed in the configuration"
    assert sum("goes on with" in line for line in instance.lines) == 2


@pytest.mark.parametrize("fault", START)
def test_when_it_is_read_for_the_first_time(sengu: Sengu, jobs: Jobs, fault: str) -> None:
    struck = Struck(sengu, jobs, fault)
    struck.arm()
    instance = struck.start().wait_ready()
    assert struck.was_reached()
    wait_for(instance, "begins with 1", 2)
    assert len(pids(instance)) == 2
    put(jobs, "jobs.toml", "n = 2\nworkers = 2\n")
    assert configure(instance) == "workers have the new configuration"
    wait_for(instance, "goes on with 2", 2)
