"""Options of start_server about files: pid, status, log, background; and --restart and --stop."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import WAIT_SECONDS, Instance, Sengu, environment, requires
from tests.system.conftest import StartPeer
from tests.system.peers import Witnesses, concluded, deploy, kill, wait_gone
from tests.system.puppets import wait_until

NOTIFY = ("--ready", "notify")


@pytest.fixture
def control(free_path: Path) -> str:
    """A control socket for what the fixture `sengu` does not start."""
    return str(free_path / "control")


@pytest.fixture
def pid_file(free_path: Path) -> Iterator[Path]:
    """A pid file. Who is in it at the end of the test, a daemon perhaps, is stopped."""
    path = free_path / "pid"
    yield path
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int(path.read_text())
        os.kill(pid, signal.SIGQUIT)
        wait_gone(pid)


def is_locked(path: Path) -> bool:
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_changed(path: Path, before: str, instance: Instance) -> str:
    """Waits, event by event, until the file has another content."""
    instance.wait_event(lambda _event: path.read_text() != before)
    return path.read_text()


def test_the_pid_file_has_the_pid_and_a_lock_while_the_instance_lives(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path
) -> None:
    pid_file.write_text("12345678 left by one that was killed\n")
    args = (*NOTIFY, "--pid-file", str(pid_file), "--", *witnesses.command())
    instance = sengu.start(*args).wait_ready()
    assert pid_file.read_text() == f"{instance.pid}\n"
    assert instance.status()["pid"] == instance.pid
    assert is_locked(pid_file)
    deploy(instance)
    assert pid_file.read_text() == f"{instance.pid}\n"
    assert instance.stop() == 0
    assert not pid_file.exists()


def test_the_status_file_names_each_generation_that_serves_or_drains(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    path = free_path / "status"
    args = (*NOTIFY, "--status-file", str(path), "--workers", "2")
    instance = sengu.start(*args, "--", *witnesses.command("hold")).wait_ready()
    old = sorted(report["pid"] for report in witnesses.wait_for(2))
    assert path.read_text() == "".join(f"1:{pid}\n" for pid in old)
    with path.open() as before:
        deploy(instance)
        new = sorted(report["pid"] for report in witnesses.wait_for(2))
        both = [f"1:{pid}\n" for pid in old] + [f"2:{pid}\n" for pid in new]
        assert path.read_text() == "".join(both)
        # A reader that had opened it sees the whole old file: it was replaced, not written over.
        assert before.read() == "".join(both[:2])
    assert not list(free_path.glob("status.*"))
    for pid in old:
        witnesses.wait("TERM", pid=pid)
        kill(pid)
    instance.wait_event(lambda event: event["type"] == "generation_retired")
    assert path.read_text() == "".join(both[2:])
    instance.signal(signal.SIGQUIT)
    assert instance.wait() == 0
    assert not path.exists()


def test_the_log_file_has_our_words_and_the_workers_and_is_reopened_by_usr1(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    log, rotated = free_path / "log", free_path / "log.1"
    log.write_text("from before\n")
    args = (*NOTIFY, "--log-file", str(log), "--", *witnesses.command("talk"))
    instance = sengu.start(*args).wait_ready()
    pid = witnesses.wait()["pid"]
    text = log.read_text()
    assert text.startswith("from before\n")
    assert "deploy of generation 1 succeeded" in text
    assert f"started on stdout of {pid}\n" in text
    assert f"started on stderr of {pid}\n" in text
    log.rename(rotated)
    instance.signal(signal.SIGUSR1)
    deploy(instance)  # signals are obeyed in order: the log is a new file by now
    second = witnesses.wait()["pid"]
    wait_gone(pid)
    assert instance.stop() == 0
    text = log.read_text()
    assert f"TERM on stdout of {pid}" in text
    assert f"TERM on stderr of {pid}" in text
    assert f"started on stdout of {second}" in text
    assert "all workers are gone" in text
    assert "second" not in rotated.read_text()
    assert str(second) not in rotated.read_text()
    assert instance.lines == []


def test_a_log_command_gets_every_line_and_outlives_us_to_read_the_last(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    log, end = free_path / "log", free_path / "end"
    os.mkfifo(end)
    script = f"cat > {log}; echo done > {end}"
    args = (*NOTIFY, "--log-file", f'| sh -c "{script}"', "--", *witnesses.command("talk"))
    instance = sengu.start(*args).wait_ready()
    pid = witnesses.wait()["pid"]
    assert instance.stop() == 0
    assert end.read_text() == "done\n"
    text = log.read_text()
    for line in (f"started on stdout of {pid}", f"TERM on stderr of {pid}", "workers are gone"):
        assert line in text


def test_a_log_command_that_dies_is_started_again_and_misses_no_line(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    """The first command reads one line and dies; the others read on."""
    # Two pipes: what the second command writes is not to reach who still reads from the first.
    one_line, other_lines = free_path / "one", free_path / "others"
    for pipe in (one_line, other_lines):
        os.mkfifo(pipe)
    script = free_path / "logger"
    script.write_text(
        "#!/bin/sh\n"
        f"test -e {free_path}/second && exec cat > {other_lines}\n"
        f'touch {free_path}/second; read -r line; echo "$line" > {one_line}\n'
    )
    script.chmod(0o755)
    instance = sengu.start(*NOTIFY, "--log-file", f"| {script}", "--", *witnesses.command("talk"))
    with one_line.open() as first:
        assert f"pid {instance.pid}, control" in first.read()
    pid = witnesses.wait()["pid"]
    with other_lines.open() as rest:
        assert instance.wait_ready().stop() == 0
        text = rest.read()
    for line in (
        "worker 0 of generation 1 started",
        f"started on stdout of {pid}",
        "the log command exited with exit status 0; it is started again",
        f"TERM on stderr of {pid}",
        "all workers are gone",
    ):
        assert line in text


def run_daemonized(
    sengu: Sengu, control: str, pid_file: Path, *args: str
) -> subprocess.CompletedProcess[str]:
    log = str(pid_file.with_name("log"))
    files = ("--control", control, "--pid-file", str(pid_file), "--log-file", log)
    return sengu.run("start", "--daemonize", *files, *args)


def test_daemonize_comes_back_when_the_service_serves(
    sengu: Sengu, witnesses: Witnesses, control: str, pid_file: Path, port: int
) -> None:
    options = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--", *witnesses.command("talk"))
    started = run_daemonized(sengu, control, pid_file, *options)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    seen, pid = witnesses.wait(), int(pid_file.read_text())
    assert is_locked(pid_file)
    assert os.getsid(pid) not in (pid, os.getsid(0))  # no leader: no terminal can become its own
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert seen["env"]["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3"
    assert "generation 1 succeeded" in pid_file.with_name("log").read_text()
    pidfd = os.pidfd_open(pid)
    stopped = sengu.run("stop", "--control", control)
    assert stopped.returncode == 0, stopped.stderr
    os.close(pidfd)
    assert not pid_file.exists()


def test_daemonize_tells_in_the_terminal_why_the_first_start_failed(
    sengu: Sengu, control: str, pid_file: Path
) -> None:
    # Without NOTIFY one that takes long to fail would have come up.
    pace = (*NOTIFY, "--attempts", "2", "--interval", "0.3")
    options = (*pace, "--", "sh", "-c", "echo boom >&2; exit 3")
    started = run_daemonized(sengu, control, pid_file, *options)
    assert started.returncode == 1
    assert started.stdout == ""
    assert started.stderr.startswith("sengu: error: generation 1 did not come up: 2 failures")
    assert "exit status 3" in started.stderr
    assert "boom" in started.stderr
    assert not Path(control).exists()


def test_daemonize_tells_in_the_terminal_what_cannot_be_bound(
    sengu: Sengu, control: str, pid_file: Path, witnesses: Witnesses, port: int
) -> None:
    options = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--", *witnesses.command())
    sengu.start(*options).wait_ready()
    started = run_daemonized(sengu, control, pid_file, *options)
    assert started.returncode == 2
    assert f"cannot bind 127.0.0.1:{port}: address already in use" in started.stderr
    assert not pid_file.exists()


@pytest.fixture
def status_file(free_path: Path) -> Path:
    return free_path / "status"


def files(pid_file: Path, status_file: Path) -> tuple[str, ...]:
    return ("--pid-file", str(pid_file), "--status-file", str(status_file))


def run_peer(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [requires("start_server"), *args],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_restart_deploys_and_waits_until_the_old_workers_are_gone(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path, status_file: Path
) -> None:
    where = files(pid_file, status_file)
    instance = sengu.start(*NOTIFY, *where, "--", *witnesses.command()).wait_ready()
    old = witnesses.wait()["pid"]
    restarted = sengu.run("start", "--restart", *where, "--control", str(instance.control_path))
    assert restarted.returncode == 0, restarted.stderr
    assert not Path(f"/proc/{old}").exists()
    assert status_file.read_text() == f"2:{witnesses.wait()['pid']}\n"


def test_restart_without_the_control_socket_goes_by_the_files(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path, status_file: Path
) -> None:
    where = files(pid_file, status_file)
    sengu.start(*NOTIFY, *where, "--", *witnesses.command()).wait_ready()
    old = witnesses.wait()["pid"]
    restarted = sengu.run("start", "--restart", *where, "--name", "somebody-else")
    assert restarted.returncode == 0, restarted.stderr
    assert "generation 2" in restarted.stderr
    wait_gone(old)
    assert status_file.read_text() == f"2:{witnesses.wait()['pid']}\n"


def test_restart_of_a_broken_program_fails_with_its_last_words(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path, status_file: Path
) -> None:
    where = files(pid_file, status_file)
    switch = pid_file.with_name("broken")
    script = f'test ! -e {switch} || {{ echo boom >&2; exit 3; }}; exec "$@"'
    pace = (*NOTIFY, "--interval", "0.2", "--attempts", "1")
    command = ("sh", "-c", script, "sh", *witnesses.command())
    instance = sengu.start(*pace, *where, "--", *command).wait_ready()
    before = status_file.read_text()
    switch.touch()
    restarted = sengu.run("start", "--restart", *where, "--control", str(instance.control_path))
    assert restarted.returncode == 1
    assert "  | boom" in restarted.stderr
    assert status_file.read_text() == before


def test_stop_waits_until_the_instance_is_gone(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path
) -> None:
    args = (*NOTIFY, "--pid-file", str(pid_file), "--", *witnesses.command())
    instance = sengu.start(*args).wait_ready()
    stopped = sengu.run("start", "--stop", "--pid-file", str(pid_file))
    assert stopped.returncode == 0, stopped.stderr
    assert instance.wait(timeout=0) == 0
    witnesses.wait("TERM")


def test_stop_gives_up_waiting_when_told_to(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path
) -> None:
    args = (*NOTIFY, "--pid-file", str(pid_file), "--", *witnesses.command("hold"))
    instance = sengu.start(*args).wait_ready()
    stopped = sengu.run("start", "--stop", "--pid-file", str(pid_file), "--timeout", "0.1")
    assert stopped.returncode == 5
    assert "still runs" in stopped.stderr
    witnesses.wait("TERM")
    kill(witnesses.wait()["pid"])
    assert instance.wait() == 0


@pytest.mark.parametrize("action", ["--restart", "--stop"])
def test_nobody_is_signalled_when_the_pid_files_owner_is_gone(
    sengu: Sengu, free_path: Path, action: str
) -> None:
    pid_file, status_file = free_path / "pid", free_path / "status"
    status_file.write_text("1:1\n")
    with subprocess.Popen(["sleep", "600"]) as innocent:
        pid_file.write_text(f"{innocent.pid}\n")
        told = sengu.run("start", action, *files(pid_file, status_file))
        assert innocent.poll() is None
        innocent.kill()
    assert told.returncode == 3
    assert "does not run any more" in told.stderr
    pid_file.unlink()
    assert sengu.run("start", action, *files(pid_file, status_file)).returncode == 3


@pytest.mark.parametrize("args", [(), ("--pid-file", "x"), ("--status-file", "x")])
def test_restart_needs_both_files(sengu: Sengu, args: tuple[str, ...]) -> None:
    told = sengu.run("start", "--restart", *args)
    assert told.returncode == 2
    assert "give --pid-file and --status-file" in told.stderr


def test_restart_and_stop_work_on_a_real_start_server(
    start_server: StartPeer, sengu: Sengu, witnesses: Witnesses, pid_file: Path, status_file: Path
) -> None:
    where = files(pid_file, status_file)
    peer = start_server("--interval", "0", *where, "--", *witnesses.command())
    old = witnesses.wait()["pid"]
    # The peer writes the file right after it has forked and slept for no time.
    wait_until(status_file.exists)
    restarted = sengu.run("start", "--restart", *where)
    assert restarted.returncode == 0, restarted.stderr
    assert status_file.read_text() == f"2:{witnesses.wait()['pid']}\n"
    wait_gone(old)
    stopped = sengu.run("start", "--stop", "--pid-file", str(pid_file))
    assert stopped.returncode == 0, stopped.stderr
    assert peer.process.poll() == 0
    assert not pid_file.exists()


def test_the_real_start_server_restarts_and_stops_an_instance_of_ours(
    sengu: Sengu, witnesses: Witnesses, pid_file: Path, status_file: Path
) -> None:
    where = files(pid_file, status_file)
    instance = sengu.start(*NOTIFY, *where, "--", *witnesses.command()).wait_ready()
    old = witnesses.wait()["pid"]
    restarted = run_peer("--restart", *where)
    assert restarted.returncode == 0, restarted.stderr
    assert not Path(f"/proc/{old}").exists()
    assert instance.wait_event(concluded(2))["outcome"] == "succeeded"
    stopped = run_peer("--stop", *where[:2])
    assert stopped.returncode == 0, stopped.stderr
    assert instance.wait() == 0
