"""A worker dies with something in hand, and its successor knows how: whoever else is killed.

No class of `sengu work` reads obituaries by itself, so the command line here is one that lets it.
"""

import sys
from pathlib import Path

import pytest

from tests.support import Sengu
from tests.system import faults
from tests.system.faults.sitecustomize import file_name
from tests.system.jobs import ENVIRONMENT, QUICK, Jobs

LETTING = """
import sys, msgspec
from sengu.cli.main import main
from sengu.config import work

make = work._application

def let(*given):
    return msgspec.structs.replace(make(*given), reads_obituaries=True)

work._application = let
del sys.argv[1:4]  # python -m sengu
main()
"""
DEADLY = """
import ctypes, os, time
from sengu.wire.obituaries import decode
from sengu.worker.obituaries import find

class Deadly(sengu.Worker):
    def run(self):
        found = find(self._obituaries, "job 17")
        if found is None:
            while not os.path.exists("go"):
                if self.stopping.wait(0.02):
                    return
            self._beat._lane.begin(time.monotonic(), b"job 17")
            self.die()
        count = len(decode(self._obituaries.read()[1]))
        self.log.info("%d: %s, %s", count, found.how, "in die" in found.last_words)
        self.stopping.wait()

    def die(self):
        ctypes.string_at(0)
"""
RECORD = "sengu.server.journal:Journal.write"
WRITE = "sengu.posix.swap_file:SwapFile.write"


@pytest.mark.parametrize(
    "fault",
    [
        "",
        f"before {WRITE} - 1",
        f"after {WRITE} - 1",
        f"before {RECORD} WorkerExited 1",
        f"after {RECORD} WorkerExited 1",
    ],
)
def test_what_a_worker_died_with_and_how_is_known_to_the_next(
    sengu: Sengu, free_path: Path, fault: str
) -> None:
    jobs = Jobs(free_path)
    jobs.write(DEADLY)
    armed = free_path / "armed"
    armed.mkdir()
    instance = sengu.work(
        "jobs.py:Deadly",
        *QUICK,
        cwd=free_path,
        env={
            **ENVIRONMENT,
            "PYTHONPATH": str(Path(faults.__file__).parent),
            "SENGU_FAULTS": fault,
            "SENGU_FAULTS_ARMED": str(armed),
        },
        prefix=(sys.executable, "-c", LETTING),
    ).wait_ready()
    if fault:
        (armed / file_name(fault)).touch()
    (free_path / "go").touch()
    words = not fault.startswith(f"before {WRITE}")
    instance.wait_for_line(f"1: signal SEGV, {words}$")
    assert not list(armed.iterdir()), "the server was killed there"


def test_a_worker_that_is_worn_has_a_successor_before_it_is_asked_to_stop(
    sengu: Sengu, free_path: Path
) -> None:
    jobs = Jobs(free_path)
    jobs.write(
        """
        class Wearing(sengu.Worker):
            def run(self):
                if not self.stopping.wait(0.2):
                    self.worn("no connection")
                    self.worn("it is said once")
                self.stopping.wait()
        """
    )
    instance = sengu.work("jobs.py:Wearing", *QUICK, cwd=free_path, env=ENVIRONMENT).wait_ready()
    old = instance.wait_for_line(r"started as pid \d+ \(to replace pid (\d+): no connection\)")[1]
    instance.wait_for_line(rf"\(pid {old}\) is asked to stop by TERM: another has taken its place")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")
