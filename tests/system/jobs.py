"""Worker classes for the tests of `sengu work`: a script that each test writes."""

import re
import textwrap
from pathlib import Path

from tests.support import Instance, Sengu

# Deploys within a second would else find the byte code of the script that was there before.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}
QUICK = ("--interval", "0.2")


class Jobs:
    """A directory with the script `jobs.py`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "jobs.py"

    def write(self, source: str, name: str = "jobs.py") -> None:
        # By rename: who imports it just now gets the old one or the new one.
        new = self.directory / f"{name}.new"
        new.write_text("import sengu\n" + textwrap.dedent(source))
        new.rename(self.directory / name)


def work(sengu: Sengu, jobs: Jobs, name: str, *options: str) -> Instance:
    """An instance of that class of the script, when it is ready."""
    target = f"jobs.py:{name}"
    instance = sengu.work(target, *QUICK, *options, cwd=jobs.directory, env=ENVIRONMENT)
    return instance.wait_ready()


def logged_by(line: str) -> tuple[int, int, int]:
    """Generation, slot and pid of who has logged that line."""
    match = re.search(r"\[(\d+)/(\d+) (\d+)\]", line)
    assert match, line
    return int(match[1]), int(match[2]), int(match[3])
