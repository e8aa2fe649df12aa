"""Servers of `sengu work` killed at any step of sockets that workers ask for and of configurations.

As `test_kill_at_every_step`, by the same means (`strikes`). Clients ask all the while.
"""

import signal
from pathlib import Path

import pytest

from tests.support import Sengu
from tests.system.puppets import CommandInThread, kill, wait_until
from tests.system.serving import Serving
from tests.system.strikes import Strikes
from tests.system.test_configure import fork_server_of

# A row is a life: where the server is killed when sockets are opened, when workers get another
# configuration and ask for more, in a deploy that closes what was more, and in the end.
LIVES = [
    (
        "process",
        "before answer an asker -",
        "after answer an asker -",
        "after send hold=managed/",
        "after execute StopWorker",
    ),
    (
        "spawn",
        "after open a managed socket -",
        "after write a configuration -",
        "before close a managed socket -",
        "before close a managed socket -",
    ),
    (
        "process",
        "after open a managed socket - 2",
        "after record Configured",
        "after close a managed socket -",
        "after close a managed socket -",
    ),
    (
        "process",
        "after send hold=managed/",
        "after open a managed socket -",
        "after send drop=managed/",
        "before record ServiceStopped",
    ),
    (
        "spawn",
        "after answer an asker -",
        "after send hold=managed/",
        "after record GenerationRetired",
        "after record ServiceStopped",
    ),
]


@pytest.mark.parametrize("life", LIVES)
def test_at_a_step_of_each_part_of_a_life(
    sengu: Sengu, free_path: Path, port: int, life: tuple[str, ...]
) -> None:
    kind, opening, configuring, deploying, ending = life
    strikes = Strikes(free_path, opening, configuring, deploying, ending)
    strikes.arm(opening)
    serving = Serving(sengu, free_path, port, kind, strikes.environment)
    assert strikes.was_reached()
    with serving.clients() as clients:
        clients.wait_for_all()
        strikes.arm(configuring)
        serving.check_configure(2, serving.extra)
        assert strikes.was_reached()
        assert serving.has_sockets(1, serving.extra)
        strikes.arm(deploying)
        serving.check_reload()
        wait_until(strikes.was_reached, deploying)
        clients.wait_for_all()
        assert serving.status()["servers"] == 4
    strikes.arm(ending)
    serving.check_end()
    assert strikes.was_reached()


def test_with_its_fork_server_while_a_configuration_is_read(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    strikes = Strikes(free_path, "after record ConfigureSent")
    serving = Serving(sengu, free_path, port, "spawn", strikes.environment)
    before, fork_server = serving.pids(), fork_server_of(serving.instance)
    kill(fork_server, signal.SIGSTOP)
    with serving.clients() as clients:
        serving.configure(2, serving.extra)
        strikes.arm()
        asked = CommandInThread(serving.instance, "configure")
        wait_until(strikes.was_reached)
        kill(fork_server)
        assert asked.result().returncode == 0
        serving.wait_for_configuration(2)
        assert serving.pids() == before
        assert serving.has_sockets(1, serving.extra)
        serving.check_reload()
        clients.wait_for_all()
    serving.check_end()
