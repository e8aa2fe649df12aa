"""Every signal to the main pid, and workers that do not do as they are told."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import INTERNAL_SIGNALS, wait_gone
from tests.support import WAIT_SECONDS, Sengu
from tests.system.puppets import (
    Clients,
    Gate,
    Pending,
    Script,
    ask,
    children,
    connect,
    household,
    in_namespace,
    is_alive,
    kill,
    last_event,
    of_type,
    pids,
    read_answer,
    start,
    wait_until,
    workers,
)

# Makes the terminal that is its first argument the controlling one, then becomes the rest.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
os.tcsetpgrp(fd, os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_workers_finish(
    sengu: Sengu, port: int, script: Script, number: signal.Signals
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    slow = Pending(port, 500)
    instance.signal(number)
    instance.wait_notified("STOPPING=1")
    assert slow.answer().generation == 1
    assert instance.wait() == 0
    assert not any("killed" in line for line in instance.lines)


def test_the_grace_bounds_a_stop(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script, "--grace", "0.3")
    slow = Pending(port, 60_000)
    instance.signal(signal.SIGTERM)
    assert instance.wait() == 0
    instance.wait_for_line("is killed: still there at the end of")
    with pytest.raises((OSError, ValueError)):
        slow.answer()


def test_a_second_int_is_immediate(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script)
    slow = Pending(port, 60_000)
    instance.signal(signal.SIGINT)
    instance.wait_event(of_type("worker_stopping"))
    instance.signal(signal.SIGINT)
    assert instance.wait() == 0
    instance.wait_for_line("immediate stop asked for by INT")
    with pytest.raises((OSError, ValueError)):
        slow.answer()


def test_quit_is_immediate(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script)
    slow = Pending(port, 60_000)
    instance.signal(signal.SIGQUIT)
    assert instance.wait() == 0
    with pytest.raises((OSError, ValueError)):
        slow.answer()


def test_an_early_term_is_not_lost(sengu: Sengu, port: int, script: Script) -> None:
    script.write("mute")
    instance = sengu.start("--port", f"127.0.0.1:{port}", "--ready", "notify", *script.command)
    instance.wait_for_line("worker 0 of generation 1 started")
    instance.signal(signal.SIGTERM)
    assert instance.wait() == 0
    instance.wait_for_line("deploy of generation 1 aborted: stop by TERM$")


def test_hup_deploys(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script)
    with Clients(port) as clients:
        instance.signal(signal.SIGHUP)
        instance.wait_event(of_type("deploy_concluded", generation=2, outcome="succeeded"))
        instance.wait_event(of_type("generation_retired", generation=1))
        assert {answer.generation for answer in clients.wait_for_answers()} == {2}


def test_usr1_reopens_the_log(sengu: Sengu, port: int, script: Script, free_path: Path) -> None:
    log, rotated = free_path / "log", free_path / "log.1"
    script.write("say before")
    instance = start(sengu, port, script, "--log-file", str(log))
    wait_until(lambda: "before" in log.read_text())
    log.rename(rotated)
    instance.signal(signal.SIGUSR1)
    wait_until(log.exists)
    script.write("say after")
    assert instance.cli("reload").returncode == 0
    wait_until(lambda: "after" in log.read_text())
    assert "after" not in rotated.read_text()


def test_ttin_and_ttou_scale_by_one(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    instance.signal(signal.SIGTTIN)
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * 3)
    instance.signal(signal.SIGTTOU)
    wait_until(lambda: len(pids(instance)) == 2)
    instance.signal(signal.SIGTTOU)
    wait_until(lambda: len(workers(instance)) == 1)
    instance.signal(signal.SIGTTOU)
    wait_until(lambda: not workers(instance))
    instance.signal(signal.SIGTTOU)  # less than none there are not
    instance.wait_event(of_type("scale_adjusted", delta=-1), since=last_event(instance) - 1)
    instance.signal(signal.SIGTTIN)
    wait_until(lambda: len(workers(instance)) == 1)
    assert ask(port).slot == 0


def test_winch_rests_and_the_listener_keeps_the_queue(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    instance.signal(signal.SIGWINCH)
    wait_until(lambda: not workers(instance))
    with connect(port, "/") as client:  # nobody is there to take it
        instance.signal(signal.SIGHUP)
        assert read_answer(client).generation == 2
    wait_until(lambda: len(pids(instance)) == 2)


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The master of a pseudo terminal, and the other end's name."""
    master, slave = pty.openpty()
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def test_a_terminal_that_is_resized_stops_nobody_and_its_ctrl_c_stops_politely(
    sengu: Sengu, port: int, script: Script, terminal: tuple[int, str]
) -> None:
    master, name = terminal
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--workers", "2", *script.command),
        prefix=(sys.executable, "-c", TAKE_TERMINAL, name),
    ).wait_ready()
    before = pids(instance)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    instance.signal(signal.SIGTTIN)  # handled after the WINCH that came before it
    wait_until(lambda: len(pids(instance)) == 3)
    assert before < pids(instance)
    slow = Pending(port, 300)
    os.write(master, b"\x03")  # to the foreground process group, of which workers are no part
    assert slow.answer().generation == 1
    assert instance.wait() == 0
    instance.wait_for_line("stop asked for by INT")
    assert not any("immediate" in line for line in instance.lines)


def test_usr2_upgrades_in_place(sengu: Sengu, port: int, script: Script) -> None:
    instance = start(sengu, port, script)
    before, server = pids(instance), instance.server_pid
    with Clients(port) as clients:
        instance.signal(signal.SIGUSR2)
        instance.wait_event(of_type("upgraded"))
        assert {answer.pid for answer in clients.wait_for_answers()} == before
    assert instance.server_pid != server
    assert instance.status()["pid"] == instance.pid
    assert pids(instance) == before
    assert instance.cli("reload", "--drained").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGCONT, signal.SIGURG])
def test_signals_without_a_meaning_do_no_harm(
    sengu: Sengu, port: int, script: Script, number: signal.Signals
) -> None:
    instance = start(sengu, port, script)
    instance.signal(number)
    assert instance.status()["state"] == "serving"


def test_a_worker_that_ignores_term_is_killed_with_its_whole_group(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    told = free_path / "told"
    script.write("deaf", f"run trap '' TERM; echo $$ >{told}; while :; do sleep 1000; done")
    instance = start(sengu, port, script, "--grace", "0.3")
    wait_until(lambda: told.exists() and told.read_text())
    helper = int(told.read_text())
    assert is_alive(helper)
    script.write()
    old = pids(instance)
    assert instance.cli("reload").returncode == 0
    event = instance.wait_event(of_type("worker_killed"))
    assert "end of its grace period" in event["text"]
    instance.wait_event(of_type("generation_retired", generation=1))
    assert not wait_gone({helper, *old}, WAIT_SECONDS)
    assert ask(port).generation == 2


def test_what_a_dead_worker_leaves_in_its_group_does_not_outlive_the_service(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    told = free_path / "told"
    script.write(f"run echo $$ >{told}; exec sleep 1000")
    instance = start(sengu, port, script)
    wait_until(lambda: told.exists() and told.read_text())
    helper = int(told.read_text())
    assert instance.stop() == 0
    assert not wait_gone({helper}, WAIT_SECONDS)


def test_a_program_behind_a_shell_is_stopped_too(sengu: Sengu, port: int, script: Script) -> None:
    """`sh -c 'prog; true'` does not pass TERM on to prog."""
    command = " ".join(script.command[1:])
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--", "sh", "-c"),
        f"LISTEN_PID=$$ {command}; true",
    ).wait_ready()
    first = ask(port).pid
    assert workers(instance)[0]["pid"] != first
    with Clients(port) as clients:
        assert instance.cli("reload", "--drained").returncode == 0
        assert {answer.generation for answer in clients.wait_for_answers()} == {2}
        assert not is_alive(first)
    second = ask(port).pid
    slow = Pending(port, 300)
    instance.signal(signal.SIGTERM)
    assert slow.answer().pid == second
    assert instance.wait() == 0
    assert not is_alive(second)


def test_what_a_crashed_worker_leaves_behind_is_ended(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    told = free_path / "told"
    script.write(f"run echo $$ >{told}; exec sleep 1000")
    instance = start(sengu, port, script)
    wait_until(lambda: told.exists() and told.read_text())
    helper = int(told.read_text())
    script.write()
    kill(workers(instance)[0]["pid"])
    assert not wait_gone({helper}, WAIT_SECONDS)
    assert ask(port).generation == 1


def test_a_zombie_that_nobody_reaps_does_not_hold_up_the_end(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    """It is in the worker's group; its parent has left that, and will never ask for its status."""
    told, gate = free_path / "told", Gate(free_path)
    # The shell would reap who ends before it has become another program.
    script.write(f"run cat {gate.path} & echo $$ >{told}; exec setsid sleep 1000")
    instance = start(sengu, port, script, "--grace", "0.5")

    def leave_zombie() -> int:
        """Of the newest worker; returns its parent."""
        gate.wait_for_somebody()
        wait_until(told.exists)
        wait_until(told.read_text)
        stranger = int(told.read_text())
        wait_until(lambda: os.getsid(stranger) == stranger)
        (zombie,) = children(stranger)
        gate.open()
        wait_until(lambda: not is_alive(zombie))
        assert os.getpgid(zombie) == workers(instance)[0]["pid"]
        told.unlink()
        return stranger

    strangers = [leave_zombie()]
    assert instance.cli("reload", "--drained").returncode == 0
    instance.wait_for_line("generation 1 .* is killed: still there")
    strangers.append(leave_zombie())
    assert instance.stop() == 0
    for pid in strangers:
        kill(pid)


def test_a_stopped_worker_is_killed_at_the_end_of_its_grace(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--grace", "0.3", "--workers", "2")
    kill(workers(instance)[0]["pid"], signal.SIGSTOP)
    assert instance.stop() == 0


def test_a_stopped_old_worker_does_not_hold_up_a_deploy(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--grace", "0.5", "--workers", "2")
    stopped = workers(instance)[0]["pid"]
    kill(stopped, signal.SIGSTOP)
    reload = instance.cli("reload", "--drained")
    assert reload.returncode == 0, reload.stderr
    assert not is_alive(stopped)
    assert {w["generation"] for w in workers(instance)} == {2}


def test_as_pid_1_it_reaps_orphans_and_term_stops_it(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    # A daemon: its parent and grandparent are gone, its session is its own.
    done = free_path / "done"
    script.write(f"run setsid sh -c '(sleep 0.05; echo >{done}) & exit 0' & exit 0")
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--workers", "2", *script.command),
        prefix=in_namespace("--pid", "--fork", "--mount-proc"),
    ).wait_ready()
    assert instance.status()["pid"] == 1
    (main,) = children(instance.pid)
    wait_until(done.exists)
    wait_until(lambda: len(children(main)) == 3)  # the server, the workers and no zombie
    with Clients(port):
        assert instance.cli("reload", "--drained").returncode == 0
    slow = Pending(port, 300)
    os.kill(main, signal.SIGTERM)
    assert slow.answer().generation == 2
    assert instance.wait() == 0


def test_stop_from_outside_a_container_does_not_wait_for_another_pid_1(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", *script.command),
        prefix=in_namespace("--pid", "--fork", "--mount-proc"),
    ).wait_ready()
    assert instance.status()["pid"] == 1
    assert instance.cli("stop", "--timeout", "20").returncode == 0
    assert instance.wait() == 0


def test_a_worker_that_forks_twice_leaves_no_zombie(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    done = free_path / "done"
    script.write(f"run setsid sh -c '(sleep 0.05; echo >{done}) & exit 0' & exit 0")
    instance = start(sengu, port, script)
    wait_until(done.exists)
    wait_until(lambda: household(instance) == pids(instance))


def test_the_death_of_the_main_process_ends_server_and_workers(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    left = children(instance.pid)
    assert len(left) == 3
    instance.signal(signal.SIGKILL)
    instance.wait()
    assert not wait_gone(left, WAIT_SECONDS)
    assert not instance.control_path.exists()


def test_the_death_of_the_server_changes_nothing_for_workers_and_clients(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    before, server = pids(instance), instance.server_pid
    with Clients(port) as clients:
        kill(server)
        told = instance.wait_event(of_type("server_adopted"))
        assert "2 workers live on" in told["text"]
        clients.wait_for_answers()
    assert instance.server_pid != server
    assert pids(instance) == before
    assert instance.cli("reload", "--drained").returncode == 0
    assert not before & pids(instance)


def test_a_worker_has_default_signals_and_a_session_of_its_own(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = sengu.start(
        "--port",
        f"127.0.0.1:{port}",
        "--ready",
        "notify",
        *script.command,
        prefix=("sh", "-c", "trap '' HUP PIPE; exec \"$@\"", "sh"),
    ).wait_ready()
    (pid,) = pids(instance)
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & ~INTERNAL_SIGNALS == 0
    assert os.getsid(pid) == pid


def test_a_stop_during_a_deploy_ends_both_generations(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    gate = Gate(free_path)
    script.write(gate.line)
    instance.signal(signal.SIGHUP)
    gate.wait_for_somebody()
    # The worker may be at the gate before the server hears that it was born.
    wait_until(lambda: len(pids(instance)) == 3)
    everybody = pids(instance)
    assert instance.stop() == 0
    assert not any(is_alive(pid) for pid in everybody)
