"""--watchdog: who has promised to say WATCHDOG=1 and falls silent is replaced."""

import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import (
    Clients,
    Script,
    ask,
    is_alive,
    kill,
    of_type,
    pids,
    wait_until,
    workers,
)

# More than a process that beats, or its client, is ever held up on a busy machine.
SECONDS = 3.0


@pytest.fixture
def script(free_path: Path) -> Script:
    script = Script(free_path)
    script.write("beat 50")
    return script


def start(sengu: Sengu, port: int, script: Script, count: int) -> Instance:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--workers", str(count), "--ready", "notify"),
        *("--interval", "0.1", "--watchdog", str(SECONDS), *script.command),
    )
    return instance.wait_ready()


def test_a_worker_that_hangs_is_aborted_and_replaced_and_no_other_is(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, 3)
    before = pids(instance)
    hung = ask(port, "/hang").pid
    stopping = instance.wait_event(of_type("worker_stopping"))
    assert stopping["reason"] == f"no WATCHDOG=1 for {SECONDS:g} s"
    assert stopping["signal"] == signal.SIGABRT
    exited = instance.wait_event(of_type("worker_exited"))
    assert exited["how"].startswith("signal ABRT")
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * 3)
    assert before - pids(instance) == {hung}
    failed = next(w for w in workers(instance) if w["restarts"])
    assert failed["last_failure"] == f"no WATCHDOG=1 for {SECONDS:g} s"


def test_a_stopped_worker_is_killed_and_the_others_serve_on(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, 2)
    stopped = workers(instance)[0]["pid"]
    kill(stopped, signal.SIGSTOP)
    with Clients(port, threads=1) as clients:
        instance.wait_event(of_type("worker_killed"))
        wait_until(lambda: not is_alive(stopped))
        wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * 2)
        clients.wait_for_answers()


def test_who_never_beats_is_replaced_after_the_first_silence(
    sengu: Sengu, port: int, script: Script
) -> None:
    script.write()
    instance = start(sengu, port, script, 1)
    script.write("beat 50")  # the next one does
    started = instance.wait_event(of_type("worker_started"))
    ready = instance.wait_event(of_type("worker_ready"))
    stopping = instance.wait_event(of_type("worker_stopping"))
    assert stopping["worker"] == started["worker"]
    assert SECONDS <= stopping["time"] - ready["time"] < SECONDS + 5
    wait_until(lambda: [w["restarts"] for w in workers(instance)] == [1])
    assert ask(port).generation == 1


def test_a_beating_worker_lives_longer_than_the_watchdog(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, 1)
    before = pids(instance)
    wait_until(lambda: workers(instance)[0]["uptime_seconds"] > 2 * SECONDS)
    assert pids(instance) == before
