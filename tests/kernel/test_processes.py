"""The check for leaked processes must find them, or no test that relies on it can fail."""

import os
import subprocess
import sys

import pytest

from tests import processes

# The parent of the sleeper exits at once, and the sleeper has a session of its own.
DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
os.environ.clear()
print(os.getpid(), flush=True)
time.sleep(60)
"""


def start_daemon() -> int:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        return int(process.stdout.readline())


@pytest.fixture(autouse=True)
def _subreaper() -> None:
    processes.become_subreaper()


def test_a_daemon_that_hides_is_found_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SETTLE_SECONDS", 0.0)
    known = processes.descendants()
    pid = start_daemon()
    assert pid in processes.descendants()
    assert processes.kill_descendants(known) == {pid}
    assert not os.path.exists(f"/proc/{pid}")


def test_what_ends_by_itself_in_time_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SETTLE_SECONDS", 20.0)
    known = processes.descendants()
    process = subprocess.Popen(["sleep", "0.1"])
    assert processes.kill_descendants(known) == set()
    process.wait()


def test_what_ran_before_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert processes.kill_descendants(processes.descendants()) == set()
        assert process.poll() is None
        process.kill()


def test_waiting_returns_those_that_still_live() -> None:
    with subprocess.Popen(["sleep", "60"]) as lasting, subprocess.Popen(["true"]) as ending:
        os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
        assert processes.wait_gone([lasting.pid, ending.pid], 0.5) == {lasting.pid}
        lasting.kill()


def test_what_is_kept_is_not_left_over_and_neither_is_what_it_started() -> None:
    known = processes.descendants()
    shell = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo started; wait"], stdout=subprocess.PIPE
    )
    processes.keep(shell)
    with shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"started\n"
        assert len(processes.descendants_of(shell.pid)) == 1
        assert processes.kill_descendants(known) == set()
        shell.kill()
    # Not kept any more, and its child has come to us.
    assert len(processes.kill_descendants(known)) == 1
