"""The access log's lines, and that a log in trouble costs nothing but lines."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from sengu.http import access_log
from sengu.http.access_log import FORMS, Log, Record, user_of
from sengu.model.web import AccessLog

RECORD = Record(
    client="192.0.2.1",
    at=0.25,
    request_line="GET /a?b HTTP/1.1",
    status=200,
    body_bytes=5,
    seconds=0.001234567,
    user="ada",
    referer='http://x/"',
    agent="curl\n\x1b\x9b\\",
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "localtime", time.gmtime)


def test_common_is_that_of_httpd() -> None:
    stamp = "01/Jan/1970:00:00:00"
    line = FORMS["common"](RECORD)
    assert line.startswith(f"192.0.2.1 - ada [{stamp} ")
    assert line.endswith('] "GET /a?b HTTP/1.1" 200 5')


def test_combined_adds_referer_and_agent_without_control_characters() -> None:
    added = FORMS["combined"](RECORD).removeprefix(FORMS["common"](RECORD))
    assert added == r' "http://x/\"" "curl\x0a\x1b\x9b\\"'


def test_what_is_missing_is_a_dash() -> None:
    line = FORMS["combined"](Record("", 0.0, "", 400, 0, 0.0))
    assert line.startswith("- - - [")
    assert line.endswith('] "-" 400 - "-" "-"')


def test_json_is_one_line_that_reads_back() -> None:
    line = FORMS["json"](RECORD)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": 0.25,
        "client": "192.0.2.1",
        "user": "ada",
        "request": "GET /a?b HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "seconds": 0.001235,
        "referer": 'http://x/"',
        "agent": "curl\n\x1b\x9b\\",
    }


@pytest.mark.parametrize(
    ("field", "user"),
    [
        ("Basic YWRhOnNlY3JldA==", "ada"),
        ("basic YWRhOnNlY3JldA==", "ada"),
        ("Basic nonsense", ""),
        ("Basic /////w==", ""),
        ("Bearer abc", ""),
        ("", ""),
    ],
)
def test_the_user_is_that_of_basic_authentication(field: str, user: str) -> None:
    assert user_of(field) == user


def test_lines_are_kept_until_they_are_flushed(tmp_path: Path) -> None:
    log = Log(AccessLog(str(tmp_path / "log")))
    log.add(RECORD)
    assert (tmp_path / "log").read_text() == ""
    log.flush()
    log.flush()
    assert (tmp_path / "log").read_text().count("\n") == 1
    log.close()


def test_many_lines_are_written_without_being_asked(tmp_path: Path) -> None:
    log = Log(AccessLog(str(tmp_path / "log")))
    for _ in range(1000):
        log.add(RECORD)
    assert (tmp_path / "log").stat().st_size >= 1 << 16
    log.close()
    assert (tmp_path / "log").read_text().count("\n") == 1000


def test_threads_lose_no_line(tmp_path: Path) -> None:
    log = Log(AccessLog(str(tmp_path / "log")))

    def add() -> None:
        for _ in range(2000):
            log.add(RECORD)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.flush()
    log.close()
    assert (tmp_path / "log").read_text().count("\n") == 8000


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = Log(AccessLog(str(tmp_path / "log")))
    log.add(RECORD)
    log.flush()
    os.rename(tmp_path / "log", tmp_path / "log.1")
    log.reopen()
    log.add(RECORD)
    log.close()
    assert (tmp_path / "log").read_text() == (tmp_path / "log.1").read_text()


def test_if_it_can_not_be_begun_anew_the_old_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    log = Log(AccessLog(str(tmp_path / "logs" / "log")))
    os.rename(tmp_path / "logs", tmp_path / "moved")
    log.reopen()
    log.add(RECORD)
    log.close()
    assert (tmp_path / "moved" / "log").read_text().count("\n") == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_full_disk_costs_lines_and_counts_them() -> None:
    log = Log(AccessLog("/dev/full"))
    for _ in range(3):
        log.add(RECORD)
    log.flush()
    assert log.lost == 3
    log.close()


def test_a_dash_is_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(AccessLog("-", "common"))
    log.add(RECORD)
    log.close()
    assert "GET /a?b HTTP/1.1" in capfd.readouterr().out


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(access_log, "_STDOUT_FD", writer)
    log = Log(AccessLog("-", "common"))
    for _ in range(3000):
        log.add(RECORD)
    log.flush()
    lost = log.lost
    assert lost > 0
    os.close(writer)
    read = os.read(reader, 1 << 20)
    log.add(RECORD)
    log.close()
    with open(reader, "rb") as rest:
        lines = (read + rest.read()).splitlines()
    assert set(lines) == {access_log.common(RECORD).encode()}
    assert len(lines) == 3001 - lost
