"""`sengu logs`: which file it shows, and how lines look in a terminal."""

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sengu.cli.log_reader import LogReader
from sengu.cli.logs import _paint
from sengu.cli.main import run
from tests.unit.fake_instance import FakeInstance, make_status
from tests.unit.test_cli import run_directory, start_instance, web

__all__ = ["run_directory", "start_instance", "web"]  # fixtures


def test_who_writes_to_no_file_is_told_where_to_look(
    web: FakeInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["logs"]) == 1
    assert "start it with --log-file FILE" in capfd.readouterr().err
    web.statuses = [make_status(log="| logger -t web")]
    assert run(["logs"]) == 1
    assert "web writes to a command, | logger -t web" in capfd.readouterr().err


def test_a_file_that_may_not_be_read_is_told(
    web: FakeInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    web.statuses = [make_status(log="/nowhere/log")]
    assert run(["logs"]) == 1
    assert "cannot read /nowhere/log: No such file or directory" in capfd.readouterr().err


class Interrupting(io.RawIOBase):
    """A file at whose end INT comes: what that raises is dropped when nobody has closed it."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            signal.raise_signal(signal.SIGINT)


def test_an_interrupt_is_heard_also_when_a_finalizer_swallows_it(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def last(_reader: LogReader, _count: int) -> Iterator[bytes]:
        left_open = Interrupting()
        yield b""
        del left_open

    path = tmp_path / "log"
    path.touch()
    web.statuses = [make_status(log=str(path))]
    monkeypatch.setattr(LogReader, "last", last)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(["logs", "-f"]) == 0  # or never
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize(
    ("line", "level", "colour"),
    [
        ("12:00:00 INFO worker started", "INFO", "green"),
        ('{"time":"12:00","level":"error","message":"INFO"}', "error", "red"),
        ('{"level": "warning"}', "warning", "yellow"),
        ("12:00:00.000 sengu[web] warning: the supervisor was killed", "warning", "yellow"),
    ],
)
def test_a_level_has_a_colour(line: str, level: str, colour: str) -> None:
    before, _, after = line.partition(level)
    assert _paint(line) == before + click.style(level, fg=colour) + after


@pytest.mark.parametrize("line", ["", "no level here", "INFORMATION", "x" * 300 + " ERROR"])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert _paint(line) == line
