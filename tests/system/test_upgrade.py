"""`sengu upgrade`, for real: another version is installed below an instance, good or broken."""

import re
import shutil
from pathlib import Path

import pytest

import sengu as installed
from tests.support import Instance, Sengu
from tests.system.puppets import pids
from tests.system.web import ENVIRONMENT, Client, Site

FAILED = 1


class Installation:
    """A copy of the package, from which an instance runs."""

    def __init__(self, directory: Path) -> None:
        self._package = directory / "installation" / "sengu"
        half_written = shutil.ignore_patterns("*.pyc.*")  # byte code, by others just now
        shutil.copytree(Path(installed.__file__).parent, self._package, ignore=half_written)
        self.environment = {**ENVIRONMENT, "PYTHONPATH": str(self._package.parent)}

    def replace(self, file: str, pattern: str, by: str) -> str:
        """Install another version of that file; returns what it was."""
        path = self._package / file
        before = path.read_text()
        after, count = re.subn(pattern, lambda _: by, before)
        assert count, f"{pattern} is not in {file}"
        self.write(file, after)
        return before

    def write(self, file: str, text: str) -> None:
        (self._package / file).write_text(text)


@pytest.fixture
def installation(free_path: Path) -> Installation:
    return Installation(free_path)


@pytest.fixture
def instance(sengu: Sengu, site: Site, port: int, installation: Installation) -> Instance:
    options = ("--listen", f"127.0.0.1:{port}", "--workers", "2")
    environment = installation.environment
    return sengu.serve("plain:app", *options, cwd=site.directory, env=environment).wait_ready()


def test_another_version_takes_over_and_nobody_notices(
    instance: Instance, installation: Installation, port: int
) -> None:
    before, main_pid, server_pid = pids(instance), instance.pid, instance.server_pid
    with Client(port) as client:
        client.ask()
        installation.replace("__init__.py", r'__version__ = "[^"]+"', '__version__ = "9.9.9"')
        upgrade = instance.cli("upgrade")
        assert upgrade.returncode == 0, upgrade.stderr
        assert re.search(r"-> 9\.9\.9, 2 workers lived on", upgrade.stdout)
        assert client.ask().pid in before
    status = instance.status()
    assert (status["version"], status["pid"]) == ("9.9.9", main_pid)
    assert status["server_pid"] != server_pid
    assert pids(instance) == before
    assert instance.cli("reload").returncode == 0


@pytest.mark.parametrize(
    ("file", "pattern", "broken"),
    [
        ("supervisor/main.py", r"\A", "raise SystemError('no supervisor')\n"),
        ("server/main.py", r"\A", "raise SystemError('no server')\n"),
        ("server/adopt.py", r"        self\._parts = parts\n", "        raise SystemError\n"),
        ("server/journal.py", r'tag="snapshot"', 'tag="snapshot", forbid_unknown_fields=1/0'),
    ],
    ids=["no supervisor", "no server", "cannot adopt", "cannot read the journal"],
)
def test_a_version_that_does_not_come_up_leaves_the_old_one_serving(
    instance: Instance,
    installation: Installation,
    port: int,
    file: str,
    pattern: str,
    broken: str,
) -> None:
    before, server_pid = pids(instance), instance.server_pid
    was = installation.replace(file, pattern, broken)
    upgrade = instance.cli("upgrade")
    assert upgrade.returncode == FAILED
    assert "the old" in upgrade.stderr
    assert instance.server_pid == server_pid, "it goes on, and was not started anew"
    assert pids(instance) == before
    with Client(port) as client:
        assert client.ask().pid in before
    instance.cli("scale", "3")
    assert len(pids(instance)) == len(before) + 1
    installation.write(file, was)
    assert instance.cli("upgrade").returncode == 0
    assert before < pids(instance)
