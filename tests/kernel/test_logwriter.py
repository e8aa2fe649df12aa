"""The log writer on real pipes and files: what goes in is in the files, once, in whole lines."""

import fcntl
import gzip
import itertools
import os
import random
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sengu.logwriter.archives import find_archives, next_archive
from sengu.logwriter.compress import compress_all
from sengu.logwriter.main import read_orders
from sengu.logwriter.writer import Rules, Writer
from tests.kernel.children import in_child

DAY = 86400.0
NOON = 1_800_014_400.0  # of some day in UTC
WAIT_SECONDS = 20


class Clock:
    """A wall clock that is told the time."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Desk:
    """A writer, the pipe that it reads, and what it complained of."""

    def __init__(self, path: Path, rules: Rules) -> None:
        self.path = path
        self.clock = Clock()
        self.complaints: list[str] = []
        self.source, self.target = os.pipe()
        self.writer = Writer(str(path), rules, self.clock, self.complaints.append)

    def write(self, data: bytes) -> None:
        os.write(self.target, data)
        while select.select([self.source], [], [], 0)[0]:
            self.writer.take(self.source)

    def close(self) -> None:
        self.writer.close()
        os.close(self.source)
        os.close(self.target)


MakeDesk = Callable[..., Desk]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


@pytest.fixture
def make(log: Path) -> Iterator[MakeDesk]:
    with ExitStack() as stack:

        def make_one(**rules: Any) -> Desk:
            desk = Desk(log, Rules(**rules))
            stack.callback(desk.close)
            return desk

        yield make_one


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sengu.logwriter.writer._local", lambda wall: wall)


def rotated(log: Path) -> list[bytes]:
    """What is in the rotated files, the oldest first."""
    found = []
    for archive in find_archives(str(log)):
        data = Path(archive.path).read_bytes()
        found.append(gzip.decompress(data) if archive.is_compressed else data)
    return found


def everything(log: Path) -> bytes:
    return b"".join(rotated(log)) + (log.read_bytes() if log.exists() else b"")


def test_a_file_is_complete_with_the_line_that_reaches_the_size(make: MakeDesk, log: Path) -> None:
    desk = make(size=10)
    desk.write(b"one\ntwo\nthree\nfour\nfive\nsix\n")
    assert rotated(log) == [b"one\ntwo\nthree\n", b"four\nfive\n"]
    assert log.read_bytes() == b"six\n"
    desk.write(b"a line ")
    desk.write(b"that comes in pieces")
    assert len(rotated(log)) == 2, "no line is cut in two"
    desk.write(b"\nnext\n")
    assert rotated(log)[2] == b"six\na line that comes in pieces\n"
    assert log.read_bytes() == b"next\n"


def test_a_rotated_file_has_the_moment_as_its_name_and_none_has_anothers(
    make: MakeDesk, log: Path
) -> None:
    desk = make(size=2)
    desk.write(b"a\nb\n")
    desk.clock.now -= DAY  # set back: the order must stay
    desk.write(b"c\nd\n")
    names = [Path(archive.path).name for archive in find_archives(str(log))]
    assert names == [f"web.log.20270115-120000.{number:03d}" for number in range(3)]
    assert rotated(log) == [b"a\n", b"b\n", b"c\n"]


def test_only_so_many_are_kept_and_files_of_other_names_stay(make: MakeDesk, log: Path) -> None:
    other = log.with_name("web.log.1")
    other.write_bytes(b"of somebody else")
    desk = make(size=2, keep=2)
    desk.write(b"".join(b"%d\n" % number for number in range(9)))
    assert rotated(log) == [b"6\n", b"7\n"]
    assert other.exists()


def test_a_new_day_begins_a_new_file_at_midnight_also_if_nothing_is_written(
    make: MakeDesk, log: Path, utc: None
) -> None:
    desk = make(age=DAY)
    desk.write(b"monday\n")
    desk.clock.now += 0.49 * DAY
    assert desk.writer.wait_seconds() == 600
    desk.clock.now = NOON + DAY / 2 - 5
    assert desk.writer.wait_seconds() == pytest.approx(5, abs=0.01)
    desk.writer.rotate_if_old()
    assert rotated(log) == []
    desk.clock.now += 5.01
    desk.writer.rotate_if_old()
    assert rotated(log) == [b"monday\n"]
    desk.clock.now += DAY
    desk.writer.rotate_if_old()
    assert len(rotated(log)) == 1, "an empty file has no age"


def test_what_was_written_yesterday_by_another_process_is_another_file(
    make: MakeDesk, log: Path, utc: None
) -> None:
    log.write_bytes(b"yesterday\n")
    os.utime(log, (NOON - DAY, NOON - DAY))
    make(age=DAY).write(b"today\n")
    assert (rotated(log), log.read_bytes()) == ([b"yesterday\n"], b"today\n")


def test_a_file_that_was_moved_away_is_not_renamed_a_second_time(make: MakeDesk, log: Path) -> None:
    desk = make(size=4)
    desk.write(b"one\n")
    log.rename(log.with_name("moved"))
    log.write_bytes(b"new\n")
    desk.write(b"two\n")
    assert log.with_name("moved").read_bytes() == b"one\n"
    assert everything(log) == b"new\ntwo\n"


def test_the_new_file_has_the_mode_of_the_old_one(make: MakeDesk, log: Path) -> None:
    desk = make(size=2)
    log.chmod(0o640)
    desk.write(b"a\nb")
    assert rotated(log) == [b"a\n"]
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_link_that_somebody_puts_in_its_place_is_not_followed(
    make: MakeDesk, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = log.with_name("shadow")
    other.write_bytes(b"secret\n")
    other.chmod(0o600)
    rename = os.rename

    def rename_and_plant(source: str, target: str) -> None:
        rename(source, target)
        log.symlink_to(other)

    desk = make(size=4)
    log.chmod(0o644)
    desk.write(b"one\n")
    monkeypatch.setattr(os, "rename", rename_and_plant)
    desk.write(b"two\n")
    assert (other.read_bytes(), other.stat().st_mode & 0o777) == (b"secret\n", 0o600)
    assert rotated(log) == [b"one\ntwo\n"], "what there is is written on"
    assert "cannot rotate" in desk.complaints[0]


def test_a_link_in_the_place_of_what_is_being_compressed_is_not_followed(log: Path) -> None:
    other = log.with_name("shadow")
    other.write_bytes(b"secret\n")
    log.write_bytes(b"one\n")
    archive = next_archive(str(log), NOON)
    log.rename(archive)
    Path(f"{archive}.gz.part").symlink_to(other)
    compress_all(str(log))
    assert other.read_bytes() == b"secret\n"
    assert rotated(log) == [b"one\n"]


def test_a_file_that_was_cut_is_appended_to(make: MakeDesk, log: Path) -> None:
    desk = make()
    desk.write(b"x" * 1000 + b"\n")
    os.truncate(log, 0)  # logrotate's copytruncate
    desk.write(b"a line\n")
    assert log.read_bytes() == b"a line\n"


def test_what_can_not_be_renamed_is_written_on_and_told_once(
    make: MakeDesk, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    desk = make(size=4)
    with monkeypatch.context() as context:
        context.setattr(os, "rename", refuse)
        for number in range(100):
            desk.write(b"line %d\n" % number)
    (complaint,) = desk.complaints
    assert complaint == f"cannot rotate {log}: Operation not permitted; it goes on"
    assert len(log.read_bytes().splitlines()) == 100
    desk.clock.now += 11
    desk.write(b"next\n")
    assert len(rotated(log)) == 1, "tried again"


def test_rotated_files_are_compressed_and_nothing_else_is_left(make: MakeDesk, log: Path) -> None:
    log.with_name("web.log.20200101-000000.000").write_bytes(b"from before\n")
    log.with_name("web.log.20200101-000000.000.gz.part").write_bytes(b"killed")
    desk = make(size=2, compress=True)
    desk.write(b"a\nb\n")
    desk.writer._compressor.finish()  # type: ignore[union-attr]
    assert rotated(log) == [b"from before\n", b"a\n"]
    assert sorted(path.suffix for path in log.parent.iterdir()) == [".gz", ".gz", ".log"]


def test_a_compressed_file_has_what_the_plain_one_had_of_mode_and_time(log: Path) -> None:
    plain = Path(next_archive(str(log), NOON))
    plain.write_bytes(b"a\n")
    plain.chmod(0o640)
    os.utime(plain, (NOON, NOON))
    compress_all(str(log))
    (archive,) = find_archives(str(log))
    found = os.stat(archive.path)
    assert archive.is_compressed
    assert (found.st_mode & 0o777, found.st_mtime) == (0o640, NOON)


def test_orders_are_words_of_the_command_line() -> None:
    words = ["/var/log/web", "size=1024", "age=86400.0", "keep=7", "compress"]
    assert read_orders(words) == ("/var/log/web", Rules(1024, 86400.0, 7, compress=True))
    assert read_orders(["x=y"]) == ("x=y", Rules())


# A kill at every step.

STEPS = ("rename", "open", "unlink", "close", "splice", "fchmod", "utime")
SENT = b"".join(b"%d %s\n" % (n, b"x" * random.Random(n).randrange(12)) for n in range(60))


def arm(fatal: int) -> None:
    """In a child: let it be killed before or after the so manieth of these calls."""
    calls = itertools.count()

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            if next(calls) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **options)
            if next(calls) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, call)

    for name in STEPS:
        wrap(name)


def write_in_child(log: Path, source: int, rules: Rules, fatal: int = -1) -> bool:
    """Whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            arm(fatal)
            writer = Writer(str(log), rules, lambda: NOON, lambda _text: None)
            while writer.take(source):
                pass
            writer.close()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


@pytest.mark.parametrize("compress", [False, True])
def test_a_writer_killed_at_any_step_loses_nothing_and_doubles_nothing(
    log: Path, compress: bool
) -> None:
    rules = Rules(size=len(SENT) // 4, keep=20, compress=compress)
    for fatal in itertools.count():
        for path in log.parent.iterdir():
            path.unlink()
        source, target = os.pipe()
        os.write(target, SENT)
        os.close(target)
        has_ended = write_in_child(log, source, rules, fatal)
        if not has_ended:
            assert write_in_child(log, source, rules)
        os.close(source)
        assert everything(log) == SENT, f"step {fatal}"
        assert all(part.endswith(b"\n") for part in rotated(log)), f"step {fatal}"
        if has_ended:
            break
    assert fatal >= 50, "that many steps there are"
    assert len(rotated(log)) == 3


# The process.


class Process:
    """The log writer as it is run, with a pipe to it that holds a lot."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        self.source, self.target = os.pipe()
        fcntl.fcntl(self.target, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.start(*words)

    def start(self, *words: str) -> None:
        self.program = subprocess.Popen(
            [sys.executable, "-P", "-m", "sengu.logwriter", str(self.log), *words],
            stdin=self.source,
            stderr=subprocess.PIPE,
        )

    def write_until_it_is_there(self, line: bytes) -> None:
        """There is no other sign that the writer has heard a signal. None is left in the pipe."""
        while line not in (self.log.read_bytes() if self.log.exists() else b""):
            assert self.program.poll() is None
            os.write(self.target, line)
            select.select([], [], [], 0.01)
        while select.select([self.source], [], [], 0)[0]:
            select.select([], [], [], 0.01)

    def finish(self) -> str:
        """What it complained of."""
        os.close(self.target)
        _, complaints = self.program.communicate(timeout=WAIT_SECONDS)
        os.close(self.source)
        assert self.program.returncode == 0
        return complaints.decode()


def test_usr1_opens_the_file_anew_and_what_ends_others_does_not_end_it(log: Path) -> None:
    process = Process(log)
    process.write_until_it_is_there(b"before\n")
    moved = log.with_name("moved")
    log.rename(moved)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        process.program.send_signal(number)
    process.write_until_it_is_there(b"after\n")
    assert process.finish() == ""
    assert b"before\n" in moved.read_bytes()
    assert log.read_bytes().replace(b"after\n", b"") == b""


def test_on_a_full_disk_it_waits_and_nothing_is_lost(log: Path) -> None:
    process = Process(log)
    process.write_until_it_is_there(b"x\n")
    size = log.stat().st_size
    resource.prlimit(
        process.program.pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY)
    )
    sent = b"".join(b"line %d\n" % number for number in range(1000))
    os.write(process.target, sent)
    assert process.program.stderr is not None
    complaint = process.program.stderr.readline().decode()
    assert complaint == (
        "sengu: log writer: cannot write: File too large; tried again until it works\n"
    )
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.program.pid, resource.RLIMIT_FSIZE, unlimited)
    assert process.finish() == "", "told once"
    assert log.read_bytes()[size:] == sent


def test_a_file_that_another_writer_writes_to_is_waited_for(log: Path) -> None:
    first = Process(log)
    first.write_until_it_is_there(b"first\n")
    second = Process(log)
    os.write(second.target, b"second\n")
    assert second.program.stderr is not None
    complaint = second.program.stderr.readline().decode()
    assert complaint == (
        f"sengu: log writer: another log writer writes to {log}; waiting until it ends, "
        "or name another file with --log-file\n"
    )
    os.write(first.target, b"last\n")
    assert first.finish() == ""
    assert second.finish() == "", "told once"
    assert log.read_bytes().replace(b"first\n", b"") == b"last\nsecond\n"


def test_a_file_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "sengu.logwriter", str(tmp_path)]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (found.returncode, found.stderr.decode()) == (
        1,
        f"sengu: log writer: cannot open {tmp_path}: Is a directory\n",
    )


def test_it_is_small() -> None:
    def body() -> None:
        code = "import sys, sengu.logwriter.main; print(*sys.modules)"
        out = subprocess.check_output([sys.executable, "-P", "-c", code], text=True)
        assert not {"msgspec", "json", "socket", "logging", "threading", "gzip", "datetime"} & set(
            out.split()
        )

    in_child(body)
