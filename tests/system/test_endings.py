"""How workers end and begin: for good, asked repeatedly, in no hurry or at once; one by one."""

import itertools
import os
import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import (
    Clients,
    Gate,
    Pending,
    Script,
    ask,
    connect,
    kill,
    of_type,
    pids,
    start,
    wait_until,
    workers,
)

FINAL = ("--unrecoverable-exit-codes", "3,4")
AT_ONCE = (*FINAL, "--stop-immediately-at-unrecoverable-exit")
LONG_MS = 60_000  # beyond the test's patience


def wait_for_generations(instance: Instance, wanted: set[int]) -> None:
    """Until these have workers, and no others."""
    wait_until(lambda: {worker["generation"] for worker in workers(instance)} == wanted)


def end_one(instance: Instance, port: int, code: int) -> None:
    """Have a worker exit with `code`, and wait until that is known."""
    before = int(instance.status()["last_event"])
    connect(port, f"/exit/{code}").close()
    instance.wait_event(of_type("worker_exited", how=f"exit status {code}"), since=before)


# --- for good ---


def test_a_worker_that_exits_for_good_is_not_replaced_and_the_last_one_ends_all(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, *FINAL, "--workers", "2")
    end_one(instance, port, 7)
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * 2)
    end_one(instance, port, 3)
    assert sorted(worker["state"] for worker in workers(instance)) == ["closed", "ready"]
    assert "not replaced (--unrecoverable-exit-codes)" in instance.cli("status").stdout
    assert ask(port).generation == 1
    connect(port, "/exit/4").close()
    assert instance.wait() == 4
    instance.wait_for_line(r"exit status 3, which is final: it is not replaced")
    instance.wait_for_line(r"stop asked for by a worker that exited with ., which is final$")


def test_the_first_such_exit_ends_all_where_that_is_wanted_when_the_others_have_finished(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, *AT_ONCE, "--workers", "2")
    slow = Pending(port, 500)
    connect(port, "/exit/3").close()  # of the other worker, as that one is busy
    assert slow.answer().generation == 1
    assert instance.wait() == 3
    assert not any("killed" in line for line in instance.lines)


def test_a_deploy_whose_worker_exits_so_is_aborted_at_once_and_the_old_one_serves(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, *AT_ONCE, "--attempts", "9")
    script.write("say no such table", "exit 3")
    with Clients(port) as clients:
        done = instance.cli("reload")
        assert done.returncode == 1
        assert "aborted: exit status 3" in done.stderr
        assert "no such table" in done.stderr
        assert {answer.generation for answer in clients.wait_for_answers()} == {1}
    instance.wait_for_line("deploy of generation 2 aborted")
    starts = [line for line in instance.lines if "of generation 2 started" in line]
    assert len(starts) == 1
    script.write()
    assert instance.cli("reload", "--drained").returncode == 0
    assert ask(port).generation == 3


@pytest.mark.parametrize("background", [(), ("--daemonize",)])
def test_a_first_generation_that_exits_so_gives_its_code_to_whoever_started_it(
    sengu: Sengu, port: int, script: Script, background: tuple[str, ...]
) -> None:
    script.write("exit 4")
    log = ("--log-file", str(script.path.with_name("log"))) if background else ()
    options = (*background, *log, *FINAL, "--port", f"127.0.0.1:{port}", "--ready", "notify")
    name = f"final-{os.getpid()}"
    done = sengu.run("start", "--name", name, *options, *script.command)
    assert done.returncode == 4
    assert "generation 1 did not come up: exit status 4" in done.stderr


# --- asked several times ---


def test_who_does_not_heed_the_first_signal_gets_the_next(
    sengu: Sengu, port: int, script: Script
) -> None:
    script.write("deaf")
    instance = start(sengu, port, script, "--stop-escalation", "TERM:200ms,QUIT:400ms")
    assert instance.stop() == 0
    instance.wait_for_line("is asked once more, by TERM: it is still there")
    instance.wait_for_line("is asked once more, by QUIT: it is still there")
    instance.wait_for_line("exited with signal QUIT")
    assert not any("is killed" in line for line in instance.lines)


def test_so_do_old_workers_and_a_new_server_sees_to_it(
    sengu: Sengu, port: int, script: Script
) -> None:
    script.write("deaf")
    instance = start(sengu, port, script, "--stop-escalation", "QUIT:1500ms")
    script.write()
    assert instance.cli("reload").returncode == 0
    instance.wait_event(of_type("worker_stopping"))
    kill(instance.status()["server_pid"])
    instance.wait_event(of_type("worker_urged"))
    instance.wait_for_line("worker 0 of generation 1 .* exited with signal QUIT")
    instance.wait_event(of_type("generation_retired"))
    assert ask(port).generation == 2


# --- one after the other ---


def test_workers_start_one_after_the_other(sengu: Sengu, port: int, script: Script) -> None:
    apart = ("--start-delay", "300ms", "--start-jitter", "0")
    instance = start(sengu, port, script, *apart, "--workers", "3")
    kinds = ("deploy_requested", "worker_started")
    found = (event["time"] for event in instance.events() if event["type"] in kinds)
    asked, *started = itertools.islice(found, 4)
    # Each is told of a little after it was due.
    waits = [moment - asked for moment in started]
    assert all(wait > 0.29 * number for number, wait in enumerate(waits)), waits


# --- in no hurry, and in all haste ---


def test_new_workers_serve_while_an_old_one_finishes_a_long_task(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script)
    with Clients(port) as clients:
        task = Pending(port, 100)
        (busy,) = pids(instance)
        kill(busy, signal.SIGSTOP)  # so it takes as long as we like
        for generation in (2, 3):  # also a deploy beside one that drains
            assert instance.cli("reload").returncode == 0
            wait_for_generations(instance, {1, generation})
            answers = clients.wait_for_answers(5)
            assert {answer.generation for answer in answers} == {generation}
        (old,) = workers(instance, 1)
        assert (old["state"], old["pid"]) == ("stopping", busy)
        kill(busy, signal.SIGCONT)
        answer = task.answer()
        assert (answer.generation, answer.pid) == (1, busy)
        instance.wait_for_line(r"worker 0 of generation 1 .* exited with exit status 0")
    assert not any("is killed" in line for line in instance.lines)


def test_an_immediate_deploy_does_not_wait_for_it(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script, "--grace", "600")
    task = Pending(port, LONG_MS)
    done = instance.cli("reload", "--now", "--drained")
    assert done.returncode == 0, done.stderr
    assert ask(port).generation == 2
    with pytest.raises(ValueError, match="answer ''"):
        task.answer()
    instance.wait_for_line("immediate deploy of generation 2 asked for by the control API")
    instance.wait_for_line("worker 0 of generation 1 .* is asked to stop by QUIT")


def test_it_hurries_one_that_an_earlier_deploy_has_let_finish(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--grace", "600")
    task = Pending(port, LONG_MS)
    assert instance.cli("reload").returncode == 0
    assert [worker["state"] for worker in workers(instance, 1)] == ["stopping"]
    assert instance.cli("reload", "--now", "--drained").returncode == 0
    assert {worker["generation"] for worker in workers(instance)} == {3}
    with pytest.raises(ValueError, match="answer ''"):
        task.answer()


# --- worker classes ---

JOBS = """
import sys
import sengu

class Quits(sengu.Worker):
    def run(self):
        sys.exit(3)

class Task(sengu.Worker):
    def run(self):
        if self.generation == 1:
            with open("gate") as gate:
                gate.read()
            self.log.info("the task is done")
        self.stopping.wait()
"""


def work(sengu: Sengu, directory: Path, name: str, *options: str) -> Instance:
    directory.joinpath("jobs.py").write_text(JOBS)
    return sengu.work(f"jobs:{name}", *options, cwd=directory)


def test_a_worker_class_may_end_for_good_too(sengu: Sengu, free_path: Path) -> None:
    instance = work(sengu, free_path, "Quits", "-w", "2", *FINAL)
    assert instance.wait() == 3


def test_new_workers_of_a_class_work_while_an_old_one_finishes_its_task(
    sengu: Sengu, free_path: Path
) -> None:
    gate = Gate(free_path)
    instance = work(sengu, free_path, "Task", "-w", "1").wait_ready()
    gate.wait_for_somebody()
    assert instance.cli("reload").returncode == 0
    states = [(worker["generation"], worker["state"]) for worker in workers(instance)]
    assert states == [(1, "stopping"), (2, "ready")]
    gate.open()
    instance.wait_for_line("the task is done")
    instance.wait_for_line("worker 0 of generation 1 .* exited with exit status 0")


def test_unless_it_is_not_to(sengu: Sengu, free_path: Path) -> None:
    gate = Gate(free_path)
    instance = work(sengu, free_path, "Task", "-w", "1", "--grace", "600").wait_ready()
    gate.wait_for_somebody()
    assert instance.cli("reload", "--now", "--drained").returncode == 0
    instance.wait_for_line("worker 0 of generation 1 .* exited with signal KILL")
    gate.open()


# --- as ServerEngine's users have it ---


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_usr1_and_int_restart_gracefully(
    sengu: Sengu, port: int, script: Script, number: signal.Signals
) -> None:
    instance = start(sengu, port, script, "--signals", "serverengine")
    task = Pending(port, 500)
    instance.signal(number)
    instance.wait_event(of_type("deploy_concluded", generation=2, outcome="succeeded"))
    assert task.answer().generation == 1
    instance.wait_event(of_type("generation_retired"))
    assert ask(port).generation == 2


def test_hup_restarts_at_once_term_stops_gracefully(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--signals", "serverengine", "--grace", "600")
    task = Pending(port, LONG_MS)
    instance.signal(signal.SIGHUP)
    instance.wait_event(of_type("generation_retired"))
    with pytest.raises(ValueError, match="answer ''"):
        task.answer()
    last = Pending(port, 500)
    instance.signal(signal.SIGTERM)
    assert last.answer().generation == 2
    assert instance.wait() == 0


def test_quit_stops_at_once(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script, "--signals", "serverengine", "--grace", "600")
    task = Pending(port, LONG_MS)
    instance.signal(signal.SIGQUIT)
    assert instance.wait() == 0
    with pytest.raises((ValueError, ConnectionResetError)):
        task.answer()


def test_usr2_reopens_the_log(sengu: Sengu, port: int, script: Script) -> None:
    log = script.path.with_name("log")
    options = ("--signals", "serverengine", "--log-file", str(log))
    instance = start(sengu, port, script, *options)
    log.rename(log.with_suffix(".old"))
    instance.signal(signal.SIGUSR2)
    wait_until(log.exists, "the new log")
    assert ask(port).generation == 1
