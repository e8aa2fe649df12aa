"""Fork and exec, signals, groups and exit statuses, with real children."""

import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sengu.posix import descriptors, prctl
from sengu.posix.limits import raise_file_limit
from sengu.posix.process import Children, Exec, Process, describe_status, signal_name
from tests.kernel.children import in_child, nothing_left_open
from tests.processes import INTERNAL_SIGNALS
from tests.support import short_directory

PATIENCE_SECONDS = 20
TRUE = ("true",)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    with nothing_left_open():
        yield


@pytest.fixture
def children() -> Children:
    return Children()


def order(*argv: str, placed: Mapping[int, int] | None = None, **changes: Any) -> Exec:
    plain = Exec(argv, {"PATH": os.environ["PATH"]}, {0: 0, 1: 1, 2: 2, **(placed or {})})
    return msgspec.structs.replace(plain, **changes)


def wait_for_exit(children: Children, process: Process) -> str:
    assert select.select([process.pidfd], [], [], PATIENCE_SECONDS)[0], "it does not end"
    how = children.exit_of(process)
    assert how is not None
    process.close()
    return how


def output_of(
    children: Children,
    *argv: str,
    fd: int = 1,
    placed: Mapping[int, int] | None = None,
    **changes: Any,
) -> tuple[str, str]:
    """What it writes to descriptor `fd`, and how it ends."""
    read_end, write_end = os.pipe()
    placed = {**(placed or {}), fd: write_end}
    process = children.spawn(order(*argv, placed=placed, **changes))
    os.close(write_end)
    with open(read_end) as stream:
        text = stream.read()
    return text, wait_for_exit(children, process)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 0", "exit status 0"),
        ("exit 9", "exit status 9"),
        ("kill -KILL $$", "signal KILL"),
        ("ulimit -c 0; kill -SEGV $$", "signal SEGV"),
    ],
)
def test_how_a_child_has_ended_is_told(children: Children, script: str, how: str) -> None:
    process = children.spawn(order("sh", "-c", script))
    assert wait_for_exit(children, process) == how


def test_a_child_that_runs_has_not_ended(children: Children) -> None:
    process = children.spawn(order("sleep", "60"))
    assert children.exit_of(process) is None
    process.signal(signal.SIGTERM)
    assert wait_for_exit(children, process) == "signal TERM"


def test_signalling_a_child_that_has_ended_is_no_error(children: Children) -> None:
    process = children.spawn(order(*TRUE))
    assert select.select([process.pidfd], [], [], PATIENCE_SECONDS)[0]
    process.signal(signal.SIGTERM)
    children.reap()
    process.signal(signal.SIGTERM)
    assert wait_for_exit(children, process) == "exit status 0"


@pytest.mark.parametrize(
    ("mode", "how", "problem"),
    [
        (None, "exit status 127", "No such file or directory"),
        (0o644, "exit status 126", "Permission denied"),
    ],
)
def test_a_program_that_cannot_be_executed_says_so_and_exits_as_a_shell_would(
    children: Children, tmp_path: Path, mode: int | None, how: str, problem: str
) -> None:
    program = tmp_path / "program"
    if mode is not None:
        program.touch(mode)
    text, ended = output_of(children, str(program), fd=2)
    assert text == f"sengu: cannot run {program}: {problem}\n"
    assert ended == how


def test_a_missing_directory_is_told(children: Children) -> None:
    text, ended = output_of(children, *TRUE, fd=2, directory="/does/not/exist")
    assert "No such file or directory" in text
    assert ended == "exit status 127"


def test_a_child_has_exactly_the_placed_descriptors() -> None:
    def body() -> None:
        descriptors.seal()  # what runs the tests leaves some open, as any parent of ours may
        null = os.open(os.devnull, os.O_RDONLY)
        placed = {0: null, 2: null, 7: null}
        text, _ = output_of(Children(), "ls", "/proc/self/fd", placed=placed)
        assert text.split() == ["0", "1", "2", "3", "7"]  # 3 is the directory that ls reads

    in_child(body)


def test_a_child_has_default_signals_an_empty_mask_and_its_own_session(children: Children) -> None:
    def body() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        own = Children()
        text, _ = output_of(own, "cat", "/proc/self/status", "/proc/self/stat")
        fields = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
        assert int(fields["SigBlk"], 16) == 0
        assert int(fields["SigIgn"], 16) & ~INTERNAL_SIGNALS == 0
        assert int(fields["SigCgt"], 16) == 0
        pid, group, session = (text.splitlines()[-1].split()[i] for i in (0, 4, 5))
        assert pid == group == session
        # In the parent everything is as before.
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    in_child(body)
    assert children.exit_of(Process(os.getpid(), -1)) is None


def test_listen_pid_is_the_childs_own_and_the_environment_no_other(children: Children) -> None:
    text, _ = output_of(
        children,
        *("sh", "-c", "echo $$; env"),
        environment={"PATH": os.environ["PATH"], "A": "1"},
        names_listen_pid=True,
    )
    first, *variables = text.splitlines()
    assert {f"LISTEN_PID={first}", "A=1"} <= set(variables)
    assert {v.partition("=")[0] for v in variables} <= {
        "PATH",
        "A",
        "LISTEN_PID",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }


def test_a_child_gets_the_death_signal_when_its_parent_ends() -> None:
    read_end, write_end = os.pipe()
    with open(read_end) as stream:

        def body() -> None:
            trap = "trap 'echo $$; exit' USR1; echo ready; while :; do sleep 0.01; done"
            Children().spawn(
                order("sh", "-c", trap, placed={1: write_end}, death_signal=signal.SIGUSR1)
            )
            assert stream.readline() == "ready\n"

        in_child(body)
        os.close(write_end)
        told = int(stream.readline())
    with contextlib.suppress(ChildProcessError):  # an orphan is ours if we are a subreaper
        os.waitpid(told, 0)


def test_no_more_processes_is_an_oserror_and_leaves_nothing() -> None:
    def body() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        with pytest.raises(BlockingIOError):
            Children().spawn(order(*TRUE))

    in_child(body)


def test_no_more_descriptors_is_an_oserror_and_leaves_no_child() -> None:
    def body() -> None:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, lowest_free))
        with pytest.raises(OSError, match="Too many open files"):
            Children().spawn(order("sleep", "60"))
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    in_child(body)


def test_a_program_gets_the_limit_of_descriptors_that_we_had_before_we_raised_ours() -> None:
    def body() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        assert raise_file_limit() == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        read_end, write_end = os.pipe()
        children = Children()
        limited = order("sh", "-c", "ulimit -n", placed={1: write_end}, file_limit=100)
        process = children.spawn(limited)
        os.close(write_end)
        with open(read_end) as stream:
            assert stream.read() == "100\n"
        os.waitpid(process.pid, 0)

    in_child(body)


def test_killing_reaches_the_whole_group() -> None:
    def body() -> None:
        prctl.become_subreaper()
        children = Children()
        read_end, write_end = os.pipe()
        process = children.spawn(
            order("sh", "-c", "sleep 60 & sleep 60 & echo ready; wait", placed={1: write_end})
        )
        os.close(write_end)
        with open(read_end) as stream:
            assert stream.readline() == "ready\n"
            children.kill_group(process)
            assert stream.read() == "", "all who had the pipe are gone"
        assert wait_for_exit(children, process) == "signal KILL"
        while children.has_group(process):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            children.reap()

    in_child(body)


def test_what_is_left_of_a_group_is_known_signalled_and_awaited() -> None:
    def body() -> None:
        prctl.become_subreaper()
        children = Children()
        process = children.spawn(order("sh", "-c", "sleep 60 & sleep 60 & exit 3"))
        assert wait_for_exit(children, process) == "exit status 3"
        assert children.has_group(process)
        emptied: list[bool] = []
        children.await_group(process, lambda: emptied.append(True))
        children.reap()
        assert not emptied
        children.signal_group(process, signal.SIGTERM)
        while not emptied:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            children.reap()
        assert emptied == [True]
        assert not children.has_group(process)
        children.signal_group(process, signal.SIGTERM)  # nobody is there: no error
        children.kill_group(process)

    in_child(body)


def test_orphans_are_reaped_too() -> None:
    def body() -> None:
        prctl.become_subreaper()
        children = Children()
        process = children.spawn(order("sh", "-c", "(sleep 0.01; exit 5) & exit 0"))
        assert wait_for_exit(children, process) == "exit status 0"
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        children.reap()
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    in_child(body)


def test_statuses_and_signals_in_words() -> None:
    assert describe_status(0) == "exit status 0"
    assert describe_status(signal.SIGSEGV | 0x80) == "signal SEGV, core dumped"
    assert signal_name(signal.SIGTERM) == "TERM"
    assert signal_name(signal.SIGRTMIN + 1) == "35"


def test_a_script_runs_in_its_directory(children: Children) -> None:
    directory = short_directory()
    text, _ = output_of(
        children, sys.executable, "-c", "import os; print(os.getcwd())", directory=str(directory)
    )
    assert text == f"{directory}\n"
    directory.rmdir()


def test_a_stranger_that_has_ended_may_turn_out_to_be_ours(children: Children) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    process = Process(pid, os.pidfd_open(pid))
    children.on_stranger = lambda: children.adopt(process)
    assert wait_for_exit(children, process) == "exit status 3"
