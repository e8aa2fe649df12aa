"""`sengu work --kind spawn`: programs that workers look after."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.processes import INTERNAL_SIGNALS
from tests.support import Instance, Sengu
from tests.system.jobs import Jobs, work
from tests.system.puppets import Gate, children, is_alive, kill, of_type, wait_until, workers
from tests.system.web import environment_of

# Says what it hears, a line each; ends by itself at `GRACEFUL_STOP` and by no signal.
LISTENER = """
import os, signal, sys

def tell(*words):
    print("program", *words, flush=True)

for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, lambda number, _frame: tell("hears", signal.Signals(number).name))
tell("runs as", os.getpid(), os.environ["SENGU_SLOT"], *sys.argv[1:])
for line in sys.stdin:
    tell("reads", line.strip())
    if line.startswith("GRACEFUL"):
        sys.exit(5)
while True:
    signal.pause()
"""
WORKER = """
import os, sys

class Program(sengu.Worker):
    def command(self):
        return [sys.executable, "listener.py", *self.config.get("arguments", [])]

    def teardown(self):
        self.log.info("torn down")

class Hearing(Program):
    reload_signal = 1

class Coloured(sengu.Worker):
    def setup(self):
        os.environ["COLOUR"] = "red"

    def command(self):
        return ["sh", "-c", "echo colour $COLOUR; exec sleep 100"]
"""


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    jobs = Jobs(free_path)
    jobs.write(WORKER)
    (free_path / "listener.py").write_text(LISTENER)
    return jobs


def spawn(sengu: Sengu, jobs: Jobs, *options: str, name: str = "Program") -> Instance:
    return work(sengu, jobs, name, "--kind", "spawn", *options)


def shell(jobs: Jobs, script: str) -> None:
    """Have `Shell` run that."""
    jobs.write(
        f"""
        class Shell(sengu.Worker):
            says_ready = True

            def command(self):
                return ["sh", "-c", {script!r}]
        """
    )


def program_of(instance: Instance) -> int:
    return int(instance.wait_for_line(r"program runs as (\d+)").group(1))


def worker_of(instance: Instance) -> int:
    return int(workers(instance)[0]["pid"])


def test_a_program_runs_below_its_worker_and_has_its_output(sengu: Sengu, jobs: Jobs) -> None:
    (jobs.directory / "jobs.json").write_text('{"arguments": ["--fast"]}')
    instance = spawn(sengu, jobs, "--config", "jobs.json", "--grace", "0.2")
    instance.wait_for_line(r"program runs as \d+ 0 --fast")
    program = program_of(instance)
    assert children(worker_of(instance)) == {program}
    assert os.readlink(f"/proc/{program}/fd/0") == "/dev/null"
    assert os.getpgid(program) == os.getpgid(worker_of(instance))
    lifeline = environment_of(program)["SENGU_LIFELINE_FD"]
    assert set(os.listdir(f"/proc/{program}/fd")) == {"0", "1", "2", lifeline}
    groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in (program, worker_of(instance))]
    assert groups[0] == groups[1]
    blocked = Path(f"/proc/{program}/status").read_text()
    assert "SigBlk:\t0000000000000000" in blocked
    ignored = int(re.search(r"SigIgn:\t(\w+)", blocked)[1], 16)  # type: ignore[index]
    # PIPE and XFSZ, as Python has them; INT and QUIT, as a shell has them for jobs.
    assert ignored & ~(INTERNAL_SIGNALS | 0b110) == 0x1001000


def test_a_program_has_what_setup_has_put_into_its_environment(sengu: Sengu, jobs: Jobs) -> None:
    spawn(sengu, jobs, name="Coloured").wait_for_line("colour red")


def test_a_program_hears_signals_and_gets_kill_with_its_worker(sengu: Sengu, jobs: Jobs) -> None:
    instance = spawn(sengu, jobs, "--grace", "5")
    program = program_of(instance)
    assert instance.stop() == 0
    instance.wait_for_line("program hears SIGTERM")
    instance.wait_for_line(r"\(pid \d+\) exited with signal KILL")
    wait_until(lambda: not is_alive(program), "the program's end")


def test_a_program_hears_lines_and_ends_its_worker_with_its_exit_code(
    sengu: Sengu, jobs: Jobs
) -> None:
    instance = spawn(sengu, jobs, "--command-pipe")
    program_of(instance)
    assert instance.stop() == 0
    instance.wait_for_line("program reads GRACEFUL_STOP")
    instance.wait_for_line("torn down")
    instance.wait_for_line(r"\(pid \d+\) exited with exit status 5")
    assert not [line for line in instance.lines if "program hears" in line]


@pytest.mark.parametrize(
    ("options", "heard"),
    [((), "program hears SIGQUIT"), (("--command-pipe",), "program reads IMMEDIATE_STOP")],
)
def test_a_stop_that_is_immediate_is_told_as_such(
    sengu: Sengu, jobs: Jobs, options: tuple[str, ...], heard: str
) -> None:
    instance = spawn(sengu, jobs, *options, "--grace", "1")
    program_of(instance)
    os.kill(worker_of(instance), signal.SIGQUIT)
    instance.wait_for_line(heard)


def test_a_changed_configuration_is_told_as_the_program_can_hear_it(
    sengu: Sengu, jobs: Jobs
) -> None:
    config = jobs.directory / "jobs.json"
    for name, options, heard in (
        ("Program", ("--command-pipe",), "program reads RELOAD"),
        ("Hearing", (), "program hears SIGHUP"),
    ):
        config.write_text("{}")
        common = ("--config", "jobs.json", "--grace", "0.5")
        instance = spawn(sengu, jobs, *options, *common, name=name)
        program_of(instance)
        config.write_text('{"arguments": []}')
        assert instance.cli("configure").returncode == 0
        instance.wait_for_line(heard)
        instance.stop()


@pytest.mark.parametrize(
    ("script", "end"), [("exit 7", "exit status 7"), ("kill -SEGV $$", "signal SEGV")]
)
def test_the_end_of_a_program_is_told_as_that_of_its_worker(
    sengu: Sengu, jobs: Jobs, script: str, end: str
) -> None:
    jobs.write(
        f"""
        class Shell(sengu.Worker):
            def command(self):
                return ["sh", "-c", "read x <gate; {script}"]
        """
    )
    gate = Gate(jobs.directory)
    instance = spawn(sengu, jobs, name="Shell")
    gate.wait_for_somebody()
    gate.open()
    instance.wait_for_line(rf"\(pid \d+\) exited with {end}, unexpectedly")
    instance.wait_for_line(rf"started as pid \d+ \(after {end}\)")


def test_a_program_that_says_so_itself_is_ready_when_it_does(sengu: Sengu, jobs: Jobs) -> None:
    notify = "import socket, os; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"
    notify += "'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))"
    os.mkfifo(jobs.directory / "gate")
    shell(jobs, f'read x < gate; python3 -c "{notify}"; exec sleep 100')
    target = "jobs.py:Shell"
    instance = sengu.work(target, "--kind", "spawn", cwd=jobs.directory)
    with (jobs.directory / "gate").open("w") as gate:
        assert [one["state"] for one in workers(instance)] == ["starting"]
        gate.write("go\n")
    instance.wait_ready()


def test_nothing_of_a_program_outlives_a_worker_that_is_killed(sengu: Sengu, jobs: Jobs) -> None:
    shell(jobs, "sleep 1000 & echo sleeper $!; wait")
    instance = sengu.work("jobs.py:Shell", "--kind", "spawn", cwd=jobs.directory)
    sleeper = int(instance.wait_for_line(r"sleeper (\d+)").group(1))
    worker = worker_of(instance)
    (program,) = children(worker)
    kill(worker)
    for pid in (program, sleeper):
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end")  # noqa: B023


def test_a_program_goes_on_when_the_server_is_killed(sengu: Sengu, jobs: Jobs) -> None:
    instance = spawn(sengu, jobs, "--command-pipe")
    program, worker = program_of(instance), worker_of(instance)
    kill(instance.server_pid)
    instance.wait_event(of_type("server_adopted"))
    assert worker_of(instance) == worker
    assert children(worker) == {program}
    assert instance.stop() == 0
    instance.wait_for_line(r"exited with exit status 5")


def test_a_program_ends_when_all_of_sengu_is_killed(sengu: Sengu, jobs: Jobs) -> None:
    instance = spawn(sengu, jobs, "--grace", "5")
    program, worker, server = program_of(instance), worker_of(instance), instance.server_pid
    for pid in (instance.pid, server):
        kill(pid)
    instance.wait_for_line("program hears SIGQUIT")
    for pid in (program, worker):
        wait_until(lambda: not is_alive(pid), "the end")  # noqa: B023


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("['nowhere']", "cannot execute 'nowhere': No such file or directory; check what command"),
        ("'sleep 1'", "command.. of Bad has returned 'sleep 1'; return a list of the program"),
        ("[]", r"command.. of Bad has returned \[\]; return a list"),
    ],
)
def test_a_command_that_is_none_is_told(sengu: Sengu, jobs: Jobs, words: str, problem: str) -> None:
    jobs.write(
        f"""
        class Bad(sengu.Worker):
            def command(self):
                return {words}
        """
    )
    instance = sengu.work("jobs.py:Bad", "--kind", "spawn", "--interval", "0", cwd=jobs.directory)
    assert instance.wait() == 1
    instance.wait_for_line(problem)


def test_a_program_that_does_not_read_is_no_obstacle(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(
        """
        class Closed(sengu.Worker):
            def command(self):
                return ["sh", "-c", "exec 0<&-; echo closed; exec sleep 100"]
        """
    )
    instance = spawn(sengu, jobs, "--command-pipe", "--grace", "5", name="Closed")
    instance.wait_for_line("closed")
    assert instance.stop() == 0
    instance.wait_for_line("WARNING .*the program has closed its stdin; GRACEFUL_STOP is lost")
