"""`sengu upgrade` of an instance of `sengu work`: workers, their sockets and configuration stay."""

from pathlib import Path

from tests.support import Sengu
from tests.system.serving import Serving
from tests.system.strikes import Strikes
from tests.system.test_upgrade import FAILED, Installation

VERSION = "__init__.py", r'__version__ = "[^"]+"', '__version__ = "9.9.9"'
BROKEN = "server/managed.py", r"_decode = .*", "_decode = None"


def test_another_version_goes_on_with_what_there_is(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    installation = Installation(free_path)
    serving = Serving(sengu, free_path, port, "spawn", installation.environment)
    instance, before = serving.instance, serving.pids()
    with serving.clients() as clients:
        serving.check_configure(2, serving.extra)
        file, was = BROKEN[0], installation.replace(*BROKEN)
        assert instance.cli("upgrade").returncode == FAILED
        serving.check_configure(3)
        installation.write(file, was)
        installation.replace(*VERSION)
        upgrade = instance.cli("upgrade")
        assert upgrade.returncode == 0, upgrade.stderr
        assert (serving.status()["version"], serving.pids()) == ("9.9.9", before)
        assert serving.has_sockets(1, serving.extra)
        clients.wait_for_all()
        serving.check_configure(4)
        serving.check_reload()
        clients.wait_for_all()
    serving.check_end()


def test_a_server_may_be_killed_meanwhile_the_new_one_on_trial_too(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    steps = ("before look around -", "after record Upgraded")
    strikes = Strikes(free_path, *steps)
    serving = Serving(sengu, free_path, port, "process", strikes.environment)
    before = serving.pids()
    with serving.clients() as clients:
        for step in steps:
            strikes.arm(step)
            serving.instance.cli("upgrade")
            assert strikes.was_reached()
            assert serving.pids() == before
            assert serving.has_sockets(1)
        serving.check_configure(2, serving.extra)
        serving.check_reload()
        clients.wait_for_all()
    serving.check_end()
