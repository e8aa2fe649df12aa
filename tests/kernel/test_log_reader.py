"""`sengu logs` reads each line once, whatever becomes of the file meanwhile."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.cli.log_reader import LogReader
from sengu.logwriter.archives import find_archives, remove_old
from sengu.logwriter.compress import compress_all
from sengu.logwriter.writer import Rules, Writer

NOON = 1_800_014_400.0


class Log:
    """A log that is written and rotated on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source, self._target = os.pipe()
        self.now = NOON
        # Rotated before each line that is written after `rotate`.
        self._writer = Writer(str(path), Rules(keep=1000), lambda: self.now, lambda _text: None)

    def write(self, text: str) -> None:
        os.write(self._target, text.encode())
        self._writer.take(self._source)

    def rotate(self) -> None:
        self.now += 1
        assert self._writer._rotate_at_line_end(self.path.stat().st_size)

    def reopen(self) -> None:
        self._writer.reopen()

    def close(self) -> None:
        self._writer.close()
        os.close(self._source)
        os.close(self._target)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path / "log")) as log:
        yield log


@pytest.fixture
def losses() -> list[str]:
    return []


@pytest.fixture
def reader(log: Log, losses: list[str]) -> Iterator[LogReader]:
    """At the end of a log that has a line."""
    log.write("old\n")
    with closing(LogReader(str(log.path), lambda: losses.append("lost"))) as reader:
        list(reader.last(0))
        yield reader


def news(reader: LogReader) -> str:
    return b"".join(reader.news()).decode()


def last(log: Log, count: int) -> list[str]:
    with closing(LogReader(str(log.path), lambda: None)) as reader:
        return [line.decode() for line in reader.last(count)]


def test_the_last_lines_are_found_also_in_rotated_and_compressed_files(log: Log) -> None:
    log.write("1\n2\n")
    log.rotate()
    log.write("3\n4\n")
    compress_all(str(log.path))
    log.rotate()
    log.write("5\n")
    assert last(log, 1) == ["5\n"]
    assert last(log, 2) == ["4\n", "5\n"]
    assert last(log, 4) == ["2\n", "3\n", "4\n", "5\n"]
    assert last(log, 10) == ["1\n", "2\n", "3\n", "4\n", "5\n"]
    assert last(log, 0) == []


def test_the_last_lines_are_found_however_long_they_are(log: Log) -> None:
    lines = ["x" * random.Random(number).randrange(9000) + "\n" for number in range(100)]
    for line in lines:
        log.write(line)
    assert last(log, 60) == lines[-60:]


def test_a_line_that_is_not_whole_is_shown_when_it_is(log: Log) -> None:
    log.write("one\ntw")
    with closing(LogReader(str(log.path), lambda: None)) as reader:
        assert list(reader.last(1)) == [b"one\n"]
        assert reader.rest() == b"tw"
        assert news(reader) == ""
        log.write("o\nth")
        assert news(reader) == "two\n"


def test_rotations_are_followed_however_many_there_were(log: Log, reader: LogReader) -> None:
    assert news(reader) == ""
    log.write("1\n")
    assert news(reader) == "1\n"
    log.write("2\n")
    log.rotate()
    assert news(reader) == "2\n"
    log.write("3\n")
    for number in range(4, 9):
        log.rotate()
        log.write(f"{number}\n")
    assert news(reader) == "3\n4\n5\n6\n7\n8\n"
    assert news(reader) == ""


def test_compression_is_followed_also_of_the_file_that_is_read(
    log: Log, reader: LogReader, losses: list[str]
) -> None:
    log.write("1\n")
    log.rotate()
    log.write("2 that is longer\n")
    log.rotate()
    compress_all(str(log.path))
    log.write("3\n")
    assert news(reader) == "1\n2 that is longer\n3\n"
    assert not losses


def test_what_was_removed_before_it_was_read_is_told(
    log: Log, reader: LogReader, losses: list[str]
) -> None:
    for number in range(1, 5):
        log.write(f"{number} {'x' * number}\n")
        log.rotate()
    remove_old(str(log.path), 2)
    log.write("5\n")
    assert news(reader) == "1 x\n3 xxx\n4 xxxx\n5\n"
    assert losses == ["lost"]


def test_a_file_that_logrotate_moves_is_read_until_the_writer_leaves_it(
    log: Log, reader: LogReader
) -> None:
    shutil.move(log.path, log.path.with_name("log.1"))
    assert news(reader) == ""
    log.path.touch()  # logrotate's `create`
    log.write("to the old file\n")
    assert news(reader) == "to the old file\n"
    log.write("its last\n")
    log.reopen()
    log.write("to the new file\n")
    assert news(reader) == "its last\nto the new file\n"


def test_a_file_that_was_cut_is_read_from_its_beginning(log: Log, reader: LogReader) -> None:
    os.truncate(log.path, 0)
    log.write("1\n")
    assert news(reader) == "1\n"


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with closing(LogReader(str(tmp_path / "log"), lambda: None)) as reader:
        assert list(reader.last(10)) == []
        assert news(reader) == ""
        (tmp_path / "log").write_text("1\n")
        assert news(reader) == "1\n"


def test_a_rotation_between_any_two_steps_of_reading_costs_nothing(
    log: Log, losses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that the reader looks for files, some are rotated, and some compressed."""
    written: list[str] = []
    chance = random.Random(11)

    def stir() -> None:
        for _ in range(chance.randrange(3)):
            written.append(f"{len(written)} {'x' * chance.randrange(20)}\n")
            log.write(written[-1])
            if chance.random() < 0.5:
                log.rotate()
            if chance.random() < 0.3:
                compress_all(str(log.path))

    def find(path: str) -> object:
        stir()
        found = find_archives(path)
        stir()
        return found

    monkeypatch.setattr("sengu.cli.log_reader.find_archives", find)
    log.write("begin\n")
    with closing(LogReader(str(log.path), lambda: losses.append("lost"))) as reader:
        read = [line.decode() for line in reader.last(10_000)][1:]
        for _ in range(100):
            stir()
            read.extend(news(reader).splitlines(keepends=True))
        monkeypatch.undo()
        read.extend(news(reader).splitlines(keepends=True))
    assert len(written) > 200
    assert read == written
    assert not losses
