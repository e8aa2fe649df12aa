"""Logs of applications, and a life in the background."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import Sengu
from tests.system.peers import wait_gone
from tests.system.puppets import wait_until
from tests.system.web import ENVIRONMENT, Site, ask, fetch, serve

AGENT = {"User-Agent": 'a "quoted" agent', "Referer": "http://elsewhere/"}
TIME = r"\[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
COMMON = rf'127\.0\.0\.1 - - {TIME} "GET /steady\?a=b HTTP/1\.1" 200 6'
LINES = {
    "common": COMMON,
    "combined": rf'{COMMON} "http://elsewhere/" "a \\"quoted\\" agent"',
}


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
@pytest.mark.parametrize("form", ["common", "combined"])
def test_a_line_for_each_request_in_apaches_formats(
    sengu: Sengu, site: Site, port: int, free_path: Path, form: str, target: str
) -> None:
    log = free_path / "access.log"
    options = ("--access-log", str(log), "--access-log-format", form)
    serve(sengu, site, port, *options, target=target)
    for _ in range(3):
        assert fetch(port, "/steady?a=b", headers=AGENT).text == "steady"
    wait_until(lambda: len(log.read_text().splitlines()) == 3)
    for line in log.read_text().splitlines():
        assert re.fullmatch(LINES[form], line), line


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_json_object_for_each_request(
    sengu: Sengu, site: Site, port: int, free_path: Path, target: str
) -> None:
    log = free_path / "access.log"
    options = ("--access-log", str(log), "--access-log-format", "json")
    serve(sengu, site, port, *options, target=target)
    fetch(port, "/steady?a=b", headers=AGENT)
    wait_until(log.read_text)
    told = json.loads(log.read_text())
    assert told["status"] == 200
    assert told["request"] == "GET /steady?a=b HTTP/1.1"
    assert (told["client"], told["bytes"]) == ("127.0.0.1", 6)
    assert (told["agent"], told["referer"]) == (AGENT["User-Agent"], AGENT["Referer"])
    assert 0 <= told["seconds"] < 60 < told["time"]


def test_the_access_log_goes_to_stdout_for_a_dash(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--access-log", "-", "--access-log-format", "common")
    fetch(port, "/steady?a=b")
    instance.wait_for_line(f"^{COMMON}$")


def test_usr1_reopens_both_logs_after_they_were_renamed(
    sengu: Sengu, site: Site, port: int, free_path: Path
) -> None:
    access, log = free_path / "access.log", free_path / "log"
    files = ("--access-log", str(access), "--log-file", str(log))
    instance = serve(sengu, site, port, "--workers", "2", *files)
    ask(port)
    wait_until(access.read_text)
    for path in (access, log):
        path.rename(f"{path}.1")
    instance.signal(signal.SIGUSR1)
    wait_until(log.exists)
    instance.status()  # answered after the workers were told
    for _ in range(20):
        fetch(port, "/steady?again")
    wait_until(lambda: access.exists() and access.read_text().count("?again") == 20)
    assert len(Path(f"{access}.1").read_text().splitlines()) == 1


def test_requests_of_a_deploy_are_all_in_the_access_log(
    sengu: Sengu, site: Site, port: int, free_path: Path
) -> None:
    access = free_path / "access.log"
    instance = serve(sengu, site, port, "--workers", "2", "--access-log", str(access))
    count = 0
    for _ in range(3):
        for _ in range(20):
            fetch(port, "/steady")
            count += 1
        assert instance.cli("reload").returncode == 0
    assert instance.stop() == 0
    assert access.read_text().count("GET /steady HTTP/1.1") == count


def test_what_the_application_prints_and_raises_is_in_the_log_file(
    sengu: Sengu, site: Site, port: int, free_path: Path
) -> None:
    log = free_path / "log"
    site.write("version.py", "TEXT = 'one'\nprint('imported')")
    serve(sengu, site, port, "--workers", "1", "--log-file", str(log))
    assert fetch(port, "/fail").status == 500
    wait_until(lambda: "RuntimeError: as asked for" in log.read_text())
    lines = log.read_text().splitlines()
    assert lines.count("imported") == 1
    assert any(re.search(r'File ".*/plain\.py", line \d+, in fail', line) for line in lines)


@pytest.fixture
def pid_file(free_path: Path) -> Iterator[Path]:
    """A pid file. Who is in it at the end of the test is stopped."""
    path = free_path / "pid"
    yield path
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int(path.read_text())
        os.kill(pid, signal.SIGQUIT)
        wait_gone(pid)


def test_in_the_background_the_command_returns_when_the_application_serves(
    sengu: Sengu, site: Site, port: int, free_path: Path, pid_file: Path
) -> None:
    control, log = str(free_path / "c"), free_path / "log"
    args = ("--control", control, "--log-file", str(log), "--pid-file", str(pid_file))
    listen = ("--listen", f"127.0.0.1:{port}", "--daemonize")
    done = sengu.run("serve", "plain:app", *args, *listen, env=ENVIRONMENT, cwd=site.directory)
    assert done.returncode == 0, done.stderr
    assert ask(port).version == "one"
    site.release("two")
    assert sengu.run("reload", "--drained", "--control", control).returncode == 0
    assert ask(port).version == "two"
    assert sengu.run("stop", "--control", control).returncode == 0
    assert not pid_file.exists()


def test_in_the_background_a_broken_application_is_told_to_who_has_started_it(
    sengu: Sengu, site: Site, port: int, free_path: Path, pid_file: Path
) -> None:
    site.write("version.py", "import no_such_module")
    args = ("--control", str(free_path / "c"), "--log-file", str(free_path / "log"))
    listen = ("--listen", f"127.0.0.1:{port}", "--daemonize", "--pid-file", str(pid_file))
    done = sengu.run("serve", "plain:app", *args, *listen, env=ENVIRONMENT, cwd=site.directory)
    assert done.returncode == 1
    assert "No module named 'no_such_module'" in done.stderr
