"""The log that one process writes for all: whole lines, each once, rotated and killed meanwhile."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import PROGRAM, WAIT_SECONDS, Instance, Sengu, environment
from tests.system.peers import wait_gone

TALKER = Path(__file__).parent / "programs" / "talker.py"
PATIENCE_SECONDS = 100.0
WORKERS = 8
ALL = str(10**9)
LINE = re.compile(rb"L ([0-9]+) ([0-9]+) ([0-9]+) ([a-z]+)\n")
LOST = re.compile(rb"sengu: ([0-9]+) lines of output were lost: it could not be written\n")


class Tally:
    """What has come of the workers' lines. Each stream's order is its writer's."""

    def __init__(self) -> None:
        self.lines = 0
        self.lost = 0
        self.torn: list[bytes] = []
        self._next: Counter[tuple[bytes, int]] = Counter()
        self.missing = 0
        self.twice = 0

    def take(self, line: bytes) -> None:
        match = LINE.fullmatch(line)
        if match is None:
            self._take_other(line)
            return
        pid, number, length, text = match.groups()
        if len(text) != int(length):
            self.torn.append(line)
        stream, place = (pid, int(number) % 2), int(number) // 2
        self.lines += 1
        self.missing += max(0, place - self._next[stream])
        self.twice += place < self._next[stream]
        self._next[stream] = place + 1

    def _take_other(self, line: bytes) -> None:
        lost = LOST.fullmatch(line)
        if lost is not None:
            self.lost += int(lost[1])
        elif b" sengu[" not in line[:30]:
            self.torn.append(line)

    def check(self, count: int) -> None:
        assert not self.torn
        assert (self.lines, self.missing, self.twice) == (count, 0, 0)


def tally(lines: Iterable[bytes]) -> Tally:
    found = Tally()
    for line in lines:
        found.take(line)
    return found


def files_of(log: Path) -> list[Path]:
    """The log's files in the order of time."""
    return [*sorted(log.parent.glob("log.2*")), log]


def lines_of(log: Path) -> Iterator[bytes]:
    for path in files_of(log):
        with path.open("rb") as file:
            yield from file


class Talk:
    """An instance whose workers wait for `begin`, and then write so many lines together."""

    def __init__(self, sengu: Sengu, log: Path, lines: int, *options: str) -> None:
        go = log.with_name("go")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(WAIT_SECONDS)
        self._listener.bind(str(go))
        self._listener.listen()
        workers = ("--workers", str(WORKERS), "--ready", "notify", "--ready-timeout", "100")
        files = ("--log-file", str(log), "--log-rotate-size", "5m", "--log-keep", "1000")
        command = (sys.executable, str(TALKER), str(lines // WORKERS), str(go))
        self.instance = sengu.start(*workers, *files, *options, "--", *command)
        self._waiting = [self._listener.accept()[0] for _ in range(WORKERS)]

    def begin(self) -> None:
        for connection in self._waiting:
            connection.close()

    def close(self) -> None:
        self.begin()
        self._listener.close()

    def stop(self) -> None:
        """Also the writer has written what it was given."""
        self.instance.wait_ready(PATIENCE_SECONDS)
        writer = writer_of(self.instance)
        assert self.instance.stop(PATIENCE_SECONDS) == 0
        wait_gone(writer)


StartTalk = Callable[..., Talk]


@pytest.fixture
def log(free_path: Path) -> Path:
    return free_path / "log"


@pytest.fixture
def talk(sengu: Sengu, log: Path) -> Iterator[StartTalk]:
    with ExitStack() as stack:

        def start(lines: int, *options: str) -> Talk:
            return stack.enter_context(closing(Talk(sengu, log, lines, *options)))

        yield start


class Follower:
    """`sengu logs -f`, from the first line on."""

    def __init__(self, instance: Instance) -> None:
        command = ("logs", "--control", str(instance.control_path), "-f", "-n", ALL)
        self._program = subprocess.Popen(
            [*PROGRAM, *command], env=environment(), stdout=subprocess.PIPE
        )
        self.tally = Tally()

    def read(self, count: int) -> Iterator[int]:
        """Each line of workers up to the so manieth."""
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self.tally.take(line)
            yield self.tally.lines
            if self.tally.lines >= count:
                return

    def close(self) -> None:
        self._program.send_signal(signal.SIGINT)
        self._program.communicate()


def writer_of(instance: Instance) -> int:
    """The pid of the log writer; waits for it while one that was killed is started again."""
    children = Path(f"/proc/{instance.pid}/task/{instance.pid}/children")
    while True:
        for pid in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if b"sengu.logwriter" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        os.sched_yield()  # nobody tells


def test_a_million_lines_of_eight_workers_are_whole_and_there_once_and_a_reader_follows(
    talk: StartTalk, log: Path
) -> None:
    lines = 1_000_000
    run = talk(lines, "--log-full", "wait")
    with closing(Follower(run.instance)) as follower:
        run.begin()
        list(follower.read(lines))
        follower.tally.check(lines)
    run.stop()
    tally(lines_of(log)).check(lines)
    *complete, _ = files_of(log)
    assert len(complete) > 20
    assert {path.stat().st_size // (5 << 20) for path in complete} == {1}


def test_compressed_files_are_followed_too(talk: StartTalk, log: Path) -> None:
    lines = 160_000
    run = talk(lines, "--log-rotate-size", "1m", "--log-compress", "--log-full", "wait")
    with closing(Follower(run.instance)) as follower:
        run.begin()
        list(follower.read(lines))
        follower.tally.check(lines)
    run.stop()
    assert {path.suffix for path in files_of(log)[:-1]} == {".gz"}
    assert run.instance.lines == []


def test_a_writer_that_is_stuck_holds_nobody_up_and_the_loss_is_counted(
    talk: StartTalk, log: Path
) -> None:
    lines = 200_000
    run = talk(lines)
    writer = writer_of(run.instance)
    os.kill(writer, signal.SIGSTOP)
    try:
        run.begin()
        run.instance.wait_ready()  # all of them have written all that they have
    finally:
        os.kill(writer, signal.SIGCONT)
    run.stop()
    found = tally(lines_of(log))
    assert not found.torn
    assert found.twice == 0
    assert found.lost > 0
    ours = 100  # lines of the server may be lost too
    assert lines <= found.lines + found.lost <= lines + ours


def test_a_writer_that_is_killed_again_and_again_while_it_rotates_loses_nothing(
    talk: StartTalk, log: Path
) -> None:
    lines = 200_000
    run = talk(lines, "--log-rotate-size", "200k", "--log-full", "wait")
    killed = set()
    with closing(Follower(run.instance)) as follower:
        run.begin()
        for count in follower.read(lines):
            if count in (50_000, 100_000, 150_000):
                writer = writer_of(run.instance)
                os.kill(writer, signal.SIGKILL)
                wait_gone(writer)
                killed.add(writer)
        follower.tally.check(lines)
    run.stop()
    assert len(killed) == 3
    tally(lines_of(log)).check(lines)


def test_a_server_that_is_killed_while_its_log_is_rotated_loses_only_what_it_had_in_hand(
    talk: StartTalk, log: Path
) -> None:
    """A piece of one pipe, and the beginning of a line of each: then its end is a line."""
    lines, kills = 200_000, (50_000, 100_000, 150_000)
    run = talk(lines, "--log-rotate-size", "200k", "--log-full", "wait")
    workers = {worker["pid"] for worker in run.instance.status()["workers"]}
    servers = {run.instance.server_pid}
    with closing(Follower(run.instance)) as follower:
        run.begin()
        for count in follower.read(lines - 10_000):
            if count in kills:
                server = run.instance.server_pid
                os.kill(server, signal.SIGKILL)
                wait_gone(server)
                servers.add(run.instance.server_pid)
    assert {worker["pid"] for worker in run.instance.status()["workers"]} == workers
    run.stop()
    assert len(servers) == 1 + len(kills)
    found = tally(lines_of(log))
    streams = 2 * WORKERS
    assert found.twice == 0
    assert len(found.torn) <= len(kills) * streams
    piece = (1 << 16) // 60  # lines
    assert lines - found.lines <= len(kills) * (piece + streams)


def test_usr1_reaches_the_writer(talk: StartTalk, log: Path) -> None:
    run = talk(80)
    run.begin()
    instance = run.instance.wait_ready()
    moved = log.with_name("moved")
    log.rename(moved)
    instance.signal(signal.SIGUSR1)
    while not log.exists():  # nobody tells when another process has heard its signal
        os.sched_yield()
    run.stop()
    before, after = moved.read_bytes(), log.read_bytes()
    tally((before + after).splitlines(keepends=True)).check(80)
    assert b"is ready" in before
    assert b"all workers are gone" in after


def test_the_status_tells_the_file_and_logs_shows_its_end(talk: StartTalk, log: Path) -> None:
    run = talk(80)
    run.begin()
    instance = run.instance.wait_ready()
    status: dict[str, Any] = instance.status()
    assert status["log"] == str(log)
    with closing(Follower(instance)) as follower:
        list(follower.read(80))
    shown = instance.cli("logs", "-n", "1000")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].endswith(f"control {instance.control_path}")
    assert len(re.findall("^L ", shown.stdout, re.MULTILINE)) == 80
    run.stop()
