"""A deploy that fails changes nothing: the old generation serves on, and somebody is told why."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import (
    Clients,
    CommandInThread,
    Gate,
    Pending,
    Script,
    ask,
    is_alive,
    of_type,
    pids,
    wait_until,
    workers,
)

FAILED = 1
SUPERSEDED = 4


def start(sengu: Sengu, port: int, script: Script, *options: str) -> Instance:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--workers", "2", "--interval", "0.1"),
        *("--ready", "notify", *options, *script.command),
    )
    return instance.wait_ready()


def serving(instance: Instance, generation: int) -> set[int]:
    """The pids of the workers that serve; the given generation does, and no other exists."""
    status = instance.status()
    assert status["state"] == "serving"
    assert status["generation"] == generation
    found: list[dict[str, Any]] = status["workers"]
    assert {(w["generation"], w["state"]) for w in found} == {(generation, "ready")}
    return {w["pid"] for w in found}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("exit 3", "exit status 3"),
        ("exit 0", "exit status 0"),
        ("die 11", "signal SEGV"),
        ("mute", "not ready within 3 s"),
    ],
)
def test_a_generation_that_fails_is_given_up_and_the_old_one_serves_on(
    sengu: Sengu, port: int, script: Script, line: str, reason: str
) -> None:
    instance = start(sengu, port, script, "--attempts", "2", "--ready-timeout", "3")
    before = serving(instance, 1)
    with Clients(port) as clients:
        script.write("say this is why", line)
        reload = instance.cli("reload")
        clients.wait_for_answers()
        wait_until(lambda: len(workers(instance)) == 2)
        assert serving(instance, 1) == before
    assert reload.returncode == FAILED
    assert f"aborted: 2 failures, the last: {reason}" in reload.stderr
    assert "generation 1 keeps serving" in reload.stderr
    assert "  | this is why" in reload.stderr
    instance.wait_for_line("deploy of generation 2 aborted")
    started = [line for line in instance.lines if "of generation 2 started" in line]
    assert len(started) == 2, "as many as --attempts, one candidate at a time"
    assert {answer.generation for answer in clients.answers} == {1}


def test_the_next_good_deploy_after_a_bad_one_works(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--attempts", "1")
    with Clients(port) as clients:
        script.write("exit 1")
        assert instance.cli("reload").returncode == FAILED
        script.write()
        reload = instance.cli("reload", "--drained")
        assert reload.returncode == 0, reload.stderr
        assert {answer.generation for answer in clients.wait_for_answers()} == {3}
    serving(instance, 3)


def test_only_the_last_lines_are_told_and_no_terminal_is_commanded_by_them(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--attempts", "1")
    script.write(*(f"say line {number}" for number in range(100)), "say \033[31m\a", "exit 1")
    reload = instance.cli("reload")
    assert "  | line 99\n" in reload.stderr
    assert "  | line 81\n" in reload.stderr
    assert "line 20" not in reload.stderr
    assert "\033" not in reload.stderr
    assert "\\x1b[31m\\x07" in reload.stderr


def test_a_candidate_that_dies_before_the_rest_is_started_costs_one_process_at_a_time(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--attempts", "3")
    script.write("exit 1")
    assert instance.cli("reload").returncode == FAILED
    instance.wait_for_line("deploy of generation 2 aborted")
    slots = [line for line in instance.lines if "of generation 2 started" in line]
    assert len(slots) == 3
    assert all("worker 0 of" in line for line in slots)


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_program_that_cannot_be_executed_is_named(
    sengu: Sengu, port: int, free_path: Path, mode: int | None
) -> None:
    program = free_path / "program"
    shutil.copy(Script(free_path).command[1], program)
    script = str(free_path / "script")
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--attempts", "1"),
        *("--", str(program), script),
    ).wait_ready()
    if mode is None:
        program.unlink()
    else:
        program.chmod(mode)
    reload = instance.cli("reload")
    assert reload.returncode == FAILED
    assert f"exit status {127 if mode is None else 126}" in reload.stderr
    problem = "No such file or directory" if mode is None else "Permission denied"
    assert f"  | sengu: cannot run {program}: {problem}" in reload.stderr
    assert ask(port).generation == 1


def test_an_envdir_that_is_gone_aborts_and_its_return_heals(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    envdir = free_path / "env"
    envdir.mkdir()
    instance = start(sengu, port, script, "--envdir", str(envdir))
    before = serving(instance, 1)
    envdir.rmdir()
    reload = instance.cli("reload")
    assert reload.returncode == FAILED
    assert f"aborted: cannot read {envdir}: No such file or directory" in reload.stderr
    assert serving(instance, 1) == before
    envdir.mkdir()
    assert instance.cli("reload", "--drained").returncode == 0
    serving(instance, 3)


def test_a_pace_that_is_no_number_aborts(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    envdir = free_path / "env"
    envdir.mkdir()
    instance = start(sengu, port, script, "--envdir", str(envdir))
    (envdir / "KILL_OLD_DELAY").write_text("soon\n")
    reload = instance.cli("reload")
    assert reload.returncode == FAILED
    assert "KILL_OLD_DELAY" in reload.stderr
    assert "soon" in reload.stderr
    serving(instance, 1)


def test_a_first_start_that_fails_exits_with_the_reason_and_leaves_nothing(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    script.write("say the last words", "exit 7")
    files = free_path / "pid", free_path / "status", free_path / "socket"
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--path", str(files[2])),
        *("--pid-file", str(files[0]), "--status-file", str(files[1])),
        *("--workers", "3", "--attempts", "2", "--interval", "0.1", "--ready", "notify"),
        *script.command,
    )
    assert instance.wait() == FAILED
    instance.wait_for_line("^the last words$")
    instance.wait_for_line(
        "sengu: error: generation 1 did not come up: [2-4] failures, the last: exit status 7"
    )
    assert not any(file.exists() for file in files)
    assert not instance.control_path.exists()
    assert not any("READY=1" in text for text in instance.notifications)


def test_a_first_start_that_is_never_ready_ends_within_the_timeout(
    sengu: Sengu, port: int, script: Script
) -> None:
    script.write("mute")
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--attempts", "1", "--ready-timeout", "0.3"),
        *("--interval", "0.1", "--ready", "notify", *script.command),
    )
    assert instance.wait() == FAILED
    instance.wait_for_line("did not come up: not ready within 0.3 s")


def test_a_rolling_deploy_that_fails_half_way_is_rolled_back(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--workers", "3", "--interval", "0.1"),
        *("--ready", "notify", "--strategy", "rolling", "--attempts", "2"),
        *script.command,
    ).wait_ready()
    gate = Gate(free_path)
    with Clients(port) as clients:
        # The first of the new ones is good; by the time it serves, the others will not be.
        script.write(gate.line)
        reload = instance.control("POST", "/v1/reload")
        gate.wait_for_somebody()
        script.write("say no good", "exit 9")
        gate.open()
        concluded = instance.wait_event(of_type("deploy_concluded", generation=2))
        assert reload.body["generation"] == 2
        assert concluded["outcome"] == "rolled back"
        assert concluded["reason"] == "2 failures, the last: exit status 9"
        assert "no good" in concluded["last_words"]
        script.write()
        wait_until(lambda: sum(w["state"] == "ready" for w in workers(instance, 1)) == 3)
        wait_until(lambda: not workers(instance, 2))
        assert {a.generation for a in clients.wait_for_answers()} == {1}
    serving(instance, 1)


def test_a_deploy_asked_for_while_another_starts_supersedes_it(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(sengu, port, script)
    gate = Gate(free_path)
    script.write(gate.line)
    with Clients(port) as clients:
        first = CommandInThread(instance, "reload")
        gate.wait_for_somebody()
        abandoned = pids(instance, 2)
        script.write()
        second = instance.cli("reload", "--drained")
        assert second.returncode == 0, second.stderr
        outcome = first.result()
        assert outcome.returncode == SUPERSEDED
        assert "generation 2 was superseded" in outcome.stderr
        assert {answer.generation for answer in clients.wait_for_answers()} == {3}
    serving(instance, 3)
    assert not any(is_alive(pid) for pid in abandoned)


def test_the_api_answers_409_with_reason_and_last_words(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--attempts", "1")
    script.write("say oh no", "exit 4")
    reply = instance.control("POST", "/v1/reload", {"wait": True})
    assert reply.status == 409
    assert reply.body == {
        "generation": 2,
        "outcome": "aborted",
        "reason": "exit status 4",
        "last_words": "oh no",
    }
    assert instance.control("POST", "/v1/reload", {"wait": True}).body["generation"] == 3
    script.write()
    reply = instance.control("POST", "/v1/reload", {"wait": True})
    assert (reply.status, reply.body["outcome"]) == (200, "succeeded")


def test_a_deploy_that_is_cut_short_by_a_stop_is_aborted(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(sengu, port, script)
    gate = Gate(free_path)
    script.write(gate.line)
    reload = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    slow = Pending(port, 300)
    assert instance.control("POST", "/v1/stop", {}).status == 202
    outcome = reload.result()
    assert outcome.returncode == FAILED
    assert "stop by the control API" in outcome.stderr
    assert slow.answer().generation == 1
    assert instance.wait() == 0
    assert not any("keeps serving" in line for line in instance.lines)
