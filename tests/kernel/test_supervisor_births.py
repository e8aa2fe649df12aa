"""What a process is born with, whatever the supervisor itself was started with."""

import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sengu.posix.prctl import set_parent_death_signal
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, in_child
from tests.kernel.supervised import MAIN, Server, Supervised, read_to_end
from tests.processes import INTERNAL_SIGNALS, become_subreaper

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def server(free_path: Path) -> Iterator[Server]:
    with Supervised(free_path) as supervisor:
        yield supervisor.begun()


def output_of(server: Server, *argv: str, fd: int = 1, **how: object) -> tuple[str, int]:
    """What a process writes to its descriptor `fd`, and how it ends."""
    read_end, write_end = os.pipe()
    server.spawned("worker/1", *argv, placed={fd: write_end}, **how)
    os.close(write_end)
    text = read_to_end(read_end)
    return text, os.waitstatus_to_exitcode(server.hear(wire.Exited).status)


@contextmanager
def odd_signals() -> Iterator[None]:
    """As under nohup, with one that is blocked besides."""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    quit_ = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    child = signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGRTMIN, child)
    signal.signal(signal.SIGQUIT, quit_)
    signal.signal(signal.SIGHUP, hangup)


def test_signals_are_the_defaults_whoever_has_started_the_supervisor(free_path: Path) -> None:
    with odd_signals():
        supervisor = Supervised(free_path)
    with supervisor:
        server = supervisor.begun()
        text, _ = output_of(server, "cat", "/proc/self/status")
        lines = dict(line.split(":\t", 1) for line in text.splitlines())
        found = {
            name: int(lines[name], 16) & ~INTERNAL_SIGNALS
            for name in ("SigBlk", "SigIgn", "SigCgt")
        }
        assert found == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}
        supervisor.signal(signal.SIGTERM)
        assert server.hear(wire.Signal).number == signal.SIGTERM


def test_it_leads_a_session_and_a_group_of_its_own(server: Server) -> None:
    text, _ = output_of(server, "cat", "/proc/self/stat")
    pid, _, _, _, group, session = text.split()[:6]
    assert pid == group == session


def test_it_has_the_environment_of_its_document_and_no_other(server: Server) -> None:
    variables = {"PATH": os.environ["PATH"], "A": "1"}
    text, _ = output_of(server, "env", environment=variables, names_listen_pid=True)
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found.pop("LISTEN_PID").isdigit()
    assert found == variables


def test_it_is_found_by_the_path_of_its_own_environment(server: Server, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    text, _ = output_of(server, "only-here", environment={"PATH": str(tmp_path)})
    assert text == "found\n"


def test_one_descriptor_may_be_placed_twice(server: Server) -> None:
    read_end, write_end = os.pipe()
    script = "echo one; echo two >&2; echo five >&5"
    server.spawned(
        "worker/1", "sh", "-c", script, placed={1: write_end, 2: write_end, 5: write_end}
    )
    os.close(write_end)
    assert read_to_end(read_end) == "one\ntwo\nfive\n"


def test_a_directory_that_is_not_there_is_told(server: Server) -> None:
    text, status = output_of(server, "true", fd=2, directory="/does/not/exist")
    assert text == "sengu: cannot run true: No such file or directory\n"
    assert status == 127


def test_a_missing_interpreter_is_told_as_a_missing_program(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    text, status = output_of(server, str(script), fd=2)
    assert text == f"sengu: cannot run {script}: No such file or directory\n"
    assert status == 127


# The supervisor's own lines, on a terminal.


def start_on(terminal: int, directory: Path, name: str = "web") -> int:
    """A supervisor in the background whose servers exit at once, so that it soon gives up."""
    script = directory / "no_server.py"
    script.write_text("")
    pid = os.fork()
    if pid == 0:
        set_parent_death_signal(signal.SIGKILL)
        os.setpgid(0, 0)  # what a shell does for `sengu start … &`
        for fd in (1, 2):
            os.dup2(terminal, fd)
        os.execv(
            sys.executable,
            [sys.executable, "-I", "-S", str(MAIN), f"name={name}", f"server={script}"],
        )
    return pid


def is_writable(fd: int) -> bool:
    return bool(select.select([], [fd], [], 0)[1])


def test_a_terminal_that_minds_the_background_is_written_to_all_the_same(free_path: Path) -> None:
    def body() -> None:
        become_subreaper()
        screen, terminal = os.openpty()
        os.login_tty(os.dup(terminal))
        modes = termios.tcgetattr(terminal)
        modes[3] |= termios.TOSTOP
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        supervisor = start_on(terminal, free_path)
        lines = b""
        while b"giving up" not in lines:
            lines += os.read(screen, 4096)
        assert os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]) == 1

    in_child(body)


def test_a_terminal_that_is_stopped_does_not_stop_the_supervisor(free_path: Path) -> None:
    def body(child: Child) -> None:
        screen, terminal = os.openpty()
        os.set_blocking(terminal, False)
        while is_writable(terminal):
            os.write(terminal, b"x" * 4096)
        while not is_writable(terminal):
            os.read(screen, 1)
        os.set_blocking(terminal, True)
        supervisor = start_on(terminal, free_path, name="w" * 4000)  # in each line
        assert os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]) == 1
        child.tell("ended")

    with Child(body) as child:
        child.wait_to_hear("ended")
