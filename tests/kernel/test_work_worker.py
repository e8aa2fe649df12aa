"""A worker class in a forked worker: the real fork server and engine, the test in their place."""

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sengu.wire import scoreboard
from sengu.work.api import Worker
from sengu.work.spawn import Program
from sengu.worker.runtime import Stopping
from tests.kernel.nursery import Baby, Nursery, exited, read_all, read_line, status_of
from tests.support import WAIT_SECONDS

JOBS = """
import asyncio, os, signal, sys, threading, time
import sengu

def say(*words):
    print(*words, file=sys.stderr, flush=True)

class Slow(sengu.Worker):
    def setup(self):
        say("setting up")
        os.close(os.open("gate", os.O_RDONLY))

    def run(self):
        say("runs", self.stopping.wait())

    def stop(self):
        say("stop")

    def teardown(self):
        say("teardown")

class Quick(Slow):
    def setup(self):
        pass

class Coroutine(Slow):
    async def run(self):
        say("runs", await self.stopping.async_wait())

    async def stop(self):
        await asyncio.sleep(0.05)
        say("stop")

class Beating(sengu.Worker):
    def run(self):
        while not self.stopping.wait(0.001):
            self.heartbeat()

    def stop(self):
        self.heartbeat()
        say("stop")

    def teardown(self):
        self.heartbeat()
        say("teardown")

class Deaf(sengu.Worker):
    def run(self):
        say("runs")
        while True:
            time.sleep(100)

    def stop(self):
        say("stop fails")
        raise RuntimeError("boom")

class Program(sengu.Worker):
    def command(self):
        return ["sh", "-c", PROGRAM]

    def stop(self):
        say("stop")

PROGRAM = "exit 9"
"""


@pytest.fixture
def notify() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        sock.settimeout(WAIT_SECONDS)
        yield sock


def address(notify: socket.socket) -> str:
    return "@" + str(notify.getsockname()[1:].decode())


def work(directory: Path, name: str, source: str = "", **options: Any) -> Nursery:
    script = directory / "jobs.py"
    script.write_text(JOBS + source)
    given = {"target": f"{script}:{name}", **options}
    nursery = Nursery(directory, engine="sengu.work.engine", options=given)
    nursery.load()
    return nursery


def rest_of(baby: Baby) -> list[str]:
    assert exited(baby)
    return read_all(baby.stderr).splitlines()


@pytest.mark.parametrize(("name", "kind"), [("Slow", "process"), ("Coroutine", "async")])
def test_a_worker_that_is_asked_to_stop_before_it_runs_hears_of_it(
    free_path: Path, name: str, kind: str
) -> None:
    os.mkfifo(free_path / "gate")
    with work(free_path, name, kind=kind) as nursery:
        baby = nursery.fork()
        assert read_line(baby.stderr) == "setting up"
        os.kill(baby.pid, signal.SIGTERM)
        with (free_path / "gate").open("wb"):
            told = rest_of(baby)
        assert sorted(told[:2]) == ["runs True", "stop"]
        assert told[2:] == ["teardown"]
        assert status_of(baby) == 0


def test_a_worker_that_is_asked_to_stop_at_its_birth_hears_of_it(free_path: Path) -> None:
    with work(free_path, "Quick") as nursery:
        babies = [nursery.fork() for _ in range(20)]
        for baby in babies:
            os.kill(baby.pid, signal.SIGTERM)
        for baby in babies:
            assert sorted(rest_of(baby)) == ["runs True", "stop", "teardown"]


def test_beats_are_on_the_scoreboard_until_the_worker_is_to_stop(
    free_path: Path, notify: socket.socket
) -> None:
    with work(free_path, "Beating") as nursery:
        baby = nursery.fork(notify=address(notify))
        assert notify.recv(100) == b"READY=1"
        first = wait_for_beat(nursery, 0.0)  # of a line that may be half written
        later = wait_for_beat(nursery, first.progress_at)
        assert later.request == scoreboard.HEARTBEAT
        assert later.started_at == first.started_at
        os.kill(baby.pid, signal.SIGTERM)
        assert rest_of(baby) == ["stop", "teardown"]
        assert not scoreboard.read_line(memoryview(nursery.memory), 0).is_busy


def wait_for_beat(nursery: Nursery, after: float) -> scoreboard.Line:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        line = scoreboard.read_line(memoryview(nursery.memory), 0)
        if line.is_busy and line.progress_at > after:
            return line
        os.sched_yield()
    raise AssertionError("no beat")


def test_a_worker_that_does_not_run_any_more_still_hears_and_fails_loudly(
    free_path: Path,
) -> None:
    with work(free_path, "Deaf") as nursery:
        baby = nursery.fork()
        assert read_line(baby.stderr) == "runs"
        os.kill(baby.pid, signal.SIGTERM)
        assert read_line(baby.stderr) == "stop fails"
        assert read_line(baby.stderr).endswith("stop() failed")
        assert not exited(baby, 0)


@pytest.mark.parametrize(
    ("program", "status"),
    [("exit 9", 9), ("exit 0", 0), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -9 $$", -9)],
)
def test_a_worker_ends_as_its_program_does(free_path: Path, program: str, status: int) -> None:
    with work(free_path, "Program", f"PROGRAM = {program!r}\n", kind="spawn") as nursery:
        assert status_of(nursery.fork()) == status


def test_a_program_hears_each_way_to_stop_once(free_path: Path) -> None:
    program = "echo runs >&2; while read line; do echo $line >&2; done"
    source = f"PROGRAM = {program!r}\n"
    with work(free_path, "Program", source, kind="spawn", command_pipe=True) as nursery:
        baby = nursery.fork()
        assert read_line(baby.stderr) == "runs"
        heard = []
        for number, line in (
            (signal.SIGTERM, "GRACEFUL_STOP"),
            (signal.SIGTERM, ""),
            (signal.SIGQUIT, "IMMEDIATE_STOP"),
        ):
            os.kill(baby.pid, number)
            while line and line not in heard:
                heard.append(read_line(baby.stderr))
        while "stop" not in heard:
            heard.append(read_line(baby.stderr))
        os.kill(baby.pid, signal.SIGKILL)
        assert sorted([*heard, *rest_of(baby)]) == ["GRACEFUL_STOP", "IMMEDIATE_STOP", "stop"]


def test_a_program_that_is_asked_to_stop_before_it_is_there_hears_of_it(free_path: Path) -> None:
    os.mkfifo(free_path / "gate")
    source = """
PROGRAM = "read line; echo program $line >&2"
class Late(Program):
    def setup(self):
        say("setting up")
        os.close(os.open("gate", os.O_RDONLY))
"""
    with work(free_path, "Late", source, kind="spawn", command_pipe=True) as nursery:
        baby = nursery.fork()
        assert read_line(baby.stderr) == "setting up"
        os.kill(baby.pid, signal.SIGTERM)
        with (free_path / "gate").open("wb"):
            assert sorted(rest_of(baby)) == ["program GRACEFUL_STOP", "stop"]


def test_a_program_ends_with_its_worker_though_nobody_is_there_to_end_it(free_path: Path) -> None:
    source = "PROGRAM = 'echo $$ >&2; trap : HUP INT TERM; read x < gate'\n"
    os.mkfifo(free_path / "gate")
    with work(free_path, "Program", source, kind="spawn") as nursery:
        baby = nursery.fork()
        pidfd = os.pidfd_open(int(read_line(baby.stderr)))
        os.kill(baby.pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], WAIT_SECONDS)[0]
        os.close(pidfd)


def test_a_program_is_told_once_however_often_its_worker_is(free_path: Path) -> None:
    class Reading(Worker):
        log = logging.getLogger("reading")

        def command(self) -> list[str]:
            return ["sh", "-c", "head -n 2 > heard"]

    with contextlib.chdir(free_path):
        program = Program(Reading(), True)
        for how in (Stopping.RETIRE, Stopping.RETIRE, Stopping.STOP, Stopping.RETIRE):
            program.stop(how)
        assert program.wait() == 0
    assert (free_path / "heard").read_text() == "GRACEFUL_STOP\nIMMEDIATE_STOP\n"
