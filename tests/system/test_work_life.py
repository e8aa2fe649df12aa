"""`sengu work`: what becomes of worker processes, and what the log says of it."""

import os
import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, needs_root
from tests.system.jobs import Jobs, logged_by, work
from tests.system.puppets import is_alive, kill, last_event, of_type, pids, wait_until, workers
from tests.system.web import environment_of, title, wait_watched

TELLING = """
class Telling(sengu.Worker):
    def run(self):
        while not self.stopping.wait(0.05):
            self.log.info("awesome work")
"""


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    return Jobs(free_path)


def next_logs(instance: Instance, count: int = 2) -> dict[int, int]:
    """By slot, the pids of those who log from now on, as soon as there are so many."""
    after = len(instance.lines)
    seen: dict[int, int] = {}

    def look() -> bool:
        for line in instance.lines[after:]:
            if "awesome work" in line:
                _, slot, pid = logged_by(line)
                seen[slot] = pid
        return len(seen) == count

    wait_until(look, "lines of all workers")
    return seen


def pid_of(instance: Instance, slot: int = 0) -> int:
    return next(int(one["pid"]) for one in workers(instance) if one["slot"] == slot)


def test_a_worker_that_is_killed_is_replaced_in_its_slot_and_the_log_says_by_which_signal(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(TELLING)
    instance = work(sengu, jobs, "Telling", "-w", "2")
    before, since = next_logs(instance), last_event(instance)
    kill(before[1])
    instance.wait_for_line(
        rf"worker 1 of generation 1 \(pid {before[1]}\) exited with signal KILL, unexpectedly"
    )
    instance.wait_for_line(r"worker 1 of generation 1 started as pid \d+ \(after signal KILL\)")
    instance.wait_event(of_type("worker_ready"), since=since)
    after = next_logs(instance)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_server_that_is_killed_orphans_nobody_and_the_same_workers_go_on(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(TELLING)
    instance = work(sengu, jobs, "Telling", "-w", "2")
    before, server = next_logs(instance), instance.server_pid
    kill(server)
    instance.wait_for_line(rf"the server \(pid {server}\) has ended \(signal KILL\); the workers")
    instance.wait_event(of_type("server_adopted"))
    assert next_logs(instance) == before
    assert pids(instance) == set(before.values())
    for pid in before.values():
        stat = Path(f"/proc/{pid}/stat").read_text()
        assert int(stat.rpartition(")")[2].split()[1]) == instance.pid


STUCK = """
import ctypes, time

class Beating(sengu.Worker):
    def run(self):
        self.heartbeat()
        self.stick()

    def stick(self):
        self.stopping.wait()

class Holding(sengu.Worker):
    def run(self):
        if self.config:
            self.heartbeat()
        self.hold_the_lock()

    def hold_the_lock(self):
        ctypes.PyDLL(None).sleep(100)

class Blocking(sengu.Worker):
    async def run(self):
        self.block_the_loop()

    def block_the_loop(self):
        time.sleep(100)

class Waiting(sengu.Worker):
    def run(self):
        self.stopping.wait()
"""


@pytest.mark.parametrize(
    ("kind", "name", "function", "reason"),
    [
        ("process", "Beating", "stick", r"it has not called heartbeat\(\) for more than 0\.5 s"),
        ("process", "Holding", "hold_the_lock", r"no WATCHDOG=1 for 0\.5 s"),
        ("async", "Blocking", "block_the_loop", r"no WATCHDOG=1 for 0\.5 s"),
    ],
)
def test_a_worker_that_hangs_tells_its_stacks_and_is_replaced(
    sengu: Sengu, jobs: Jobs, kind: str, name: str, function: str, reason: str
) -> None:
    jobs.write(STUCK)
    instance = work(
        sengu, jobs, name, "--kind", kind, "--heartbeat-timeout", "0.5", "--grace", "10"
    )
    pid = int(instance.wait_for_line(rf"\(pid (\d+)\) is asked to stop by ABRT: {reason}").group(1))
    instance.wait_for_line(rf'File "{jobs.script}", line \d+ in {function}')
    instance.wait_for_line(rf"\(pid {pid}\) exited with signal ABRT")
    instance.wait_for_line(rf"started as pid \d+ \(after {reason}\)")
    instance.signal(signal.SIGQUIT)  # its successors hear no TERM


def test_a_worker_that_is_stopped_by_somebody_is_replaced(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(STUCK)
    instance = work(sengu, jobs, "Waiting", "--heartbeat-timeout", "3")
    pid = pid_of(instance)
    os.kill(pid, signal.SIGSTOP)
    instance.wait_for_line(r"started as pid \d+ \(after no WATCHDOG=1 for 3 s\)")
    instance.wait_for_line(rf"\(pid {pid}\) exited with signal KILL")


def test_a_worker_that_beats_in_time_lives(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(
        """
        class Beating(sengu.Worker):
            def run(self):
                for number in range(50):
                    self.heartbeat()
                    if self.stopping.wait(0.1):
                        return
                self.log.info("alive")
                while not self.stopping.wait(0.1):
                    self.heartbeat()
        """
    )
    instance = work(sengu, jobs, "Beating", "--heartbeat-timeout", "4")
    pid = pid_of(instance)
    line = instance.wait_for_line(r".*alive")[0]
    assert logged_by(line) == (1, 0, pid)


ENDING = """
class Ending(sengu.Worker):
    def run(self):
        self.stopping.wait(0.2)
        if self.config["fails"]:
            raise RuntimeError("boom")

    def teardown(self):
        self.log.info("torn down")
"""


@pytest.mark.parametrize(("fails", "end"), [(False, "exit status 0"), (True, "exit status 1")])
def test_a_worker_whose_run_ends_is_torn_down_and_started_again(
    sengu: Sengu, jobs: Jobs, fails: bool, end: str
) -> None:
    jobs.write(ENDING)
    (jobs.directory / "jobs.toml").write_text(f"fails = {str(fails).lower()}")
    instance = work(sengu, jobs, "Ending", "--config", "jobs.toml")
    instance.wait_for_line(rf"\(pid \d+\) exited with {end}, unexpectedly")
    instance.wait_for_line(rf"started as pid \d+ \(after {end}\)")
    lines = "\n".join(instance.lines)
    assert ("RuntimeError: boom" in lines) == fails
    assert lines.index("torn down") < lines.index(f"exited with {end}")


def test_a_worker_in_a_thread_is_started_again_there_and_the_others_go_on(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(
        """
        class Two(sengu.Worker):
            def run(self):
                if self.slot == 1:
                    self.log.info("begins")
                    raise RuntimeError("boom")
                self.stopping.wait()
                self.log.info("ends")
        """
    )
    instance = work(sengu, jobs, "Two", "--kind", "thread", "-w", "2")
    pid = pid_of(instance)
    first = instance.wait_for_line(r".*INFO .*begins")[0]
    instance.wait_for_line(r"ERROR .*run\(\) failed; it is called again in 0.2 s")
    instance.wait_for_line("RuntimeError: boom")
    again = instance.wait_for_line(r".*INFO .*begins", after=instance.lines.index(first) + 1)[0]
    assert logged_by(first) == logged_by(again) == (1, 1, pid)
    assert instance.stop() == 0
    instance.wait_for_line("ends$")
    assert len([line for line in instance.lines if "ends" in line]) == 1


STOPPING = """
import hashlib, os, threading

class Base:
    def stop(self):
        self.log.info("stop %s", threading.current_thread().name)

    def teardown(self):
        self.log.info("teardown")

class Process(Base, sengu.Worker):
    def run(self):
        self.stopping.wait()
        self.log.info("run ends")

class Async(Base, sengu.Worker):
    async def run(self):
        await self.stopping.async_wait()

class Deep(sengu.Worker):
    def run(self):
        self.log.info("deep")
        hashlib.pbkdf2_hmac("sha512", b"", b"", 1 << 30)

    def stop(self):
        self.log.info("heard")
        os._exit(0)
"""


@pytest.mark.parametrize(
    ("kind", "name"), [("process", "Process"), ("thread", "Process"), ("async", "Async")]
)
def test_stop_is_called_once_and_before_teardown(
    sengu: Sengu, jobs: Jobs, kind: str, name: str
) -> None:
    jobs.write(STOPPING)
    instance = work(sengu, jobs, name, "--kind", kind)
    assert instance.stop() == 0
    instance.wait_for_line("teardown$")
    told = [line for line in instance.lines if " INFO " in line]
    words = [line.rpartition("] ")[2].split()[0] for line in told]
    assert words.count("stop") == words.count("teardown") == 1
    assert words[-1] == "teardown"


def test_a_worker_in_the_depths_of_a_c_function_is_told_to_stop_at_once(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(STOPPING)
    instance = work(sengu, jobs, "Deep")
    instance.wait_for_line("deep")
    assert instance.stop() == 0
    instance.wait_for_line("heard")


def test_a_worker_is_replaced_by_age_its_successor_first(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(TELLING)
    instance = work(sengu, jobs, "Telling", "--max-age", "1")
    pid = pid_of(instance)
    instance.wait_for_line(rf"started as pid \d+ \(to replace pid {pid}: older than 1 s\)")
    instance.wait_for_line(rf"\(pid {pid}\) exited with exit status 0")


def test_a_worker_is_replaced_when_it_has_grown_though_it_never_beats(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(
        """
        class Growing(sengu.Worker):
            def run(self):
                self.stopping.wait(0.5)
                self.ballast = b"x" * (100 << 20)
                self.stopping.wait()
        """
    )
    instance = work(sengu, jobs, "Growing", "--max-rss", "80m")
    pid = pid_of(instance)
    instance.wait_for_line(rf"\(to replace pid {pid}: \d+ MiB resident, more than 80\)")
    instance.wait_for_line(rf"\(pid {pid}\) exited with exit status 0")


def test_titles_name_service_class_and_slot(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(TELLING)
    instance = work(sengu, jobs, "Telling", "-w", "2")
    for slot in (0, 1):
        expected = f"sengu: {instance.name} worker {slot} gen 1: Telling"
        wait_until(lambda: title(pid_of(instance, slot)) == expected, expected)  # noqa: B023


def test_status_has_nothing_of_requests_and_connections(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(TELLING.replace("while", "self.heartbeat()\n        while"))
    instance = work(sengu, jobs, "Telling")
    next_logs(instance, 1)
    headings = instance.cli("status").stdout.split("\n\n")[1].splitlines()[0]
    assert headings.split()[-3:] == ["UPTIME", "RESTARTS", "NOTE"]
    (worker,) = workers(instance)
    assert [worker[name] for name in ("requests", "busy", "connections")] == [None] * 3
    assert worker["doing"] == ""


def test_why_a_class_cannot_be_loaded_is_told_once(sengu: Sengu, free_path: Path) -> None:
    done = sengu.run("work", "--name", "nowhere", "nowhere_of_test:Class", "--dir", str(free_path))
    assert done.returncode == 1
    assert done.stderr.count("no module named nowhere_of_test") == 1
    assert "--dir" in done.stderr.splitlines()[-1]


def test_a_worker_runs_where_and_as_whom_it_is_told(sengu: Sengu, jobs: Jobs) -> None:
    needs_root()
    jobs.write(
        """
        import os

        class Who(sengu.Worker):
            def run(self):
                mask = os.umask(0)
                self.log.info("who %d %d %o %s %s", os.getuid(), os.getgid(), mask,
                    os.getcwd(), os.environ["COLOUR"])
                self.stopping.wait()
        """
    )
    variables, elsewhere = jobs.directory / "env", jobs.directory / "elsewhere"
    variables.mkdir()
    (variables / "COLOUR").write_text("red\n")
    elsewhere.mkdir()
    for directory in (jobs.directory, elsewhere):
        directory.chmod(0o755)
    options = ("--user", "nobody", "--group", "65534", "--umask", "027", "--envdir", str(variables))
    instance = work(sengu, jobs, "Who", *options, "--dir", str(elsewhere))
    instance.wait_for_line(rf"who 65534 65534 27 {elsewhere} red")
    assert environment_of(pid_of(instance))["COLOUR"] == "red"


def test_a_change_of_the_script_is_a_deploy_when_it_is_watched(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(TELLING)
    instance = work(sengu, jobs, "Telling", "--reload")
    wait_watched(instance)
    instance.wait_for_line("awesome work")
    jobs.write(TELLING.replace("awesome", "better"))
    line = instance.wait_for_line(r".*better work")[0]
    assert logged_by(line)[0] == 2


def test_a_long_task_is_finished_while_the_new_code_runs_beside_it(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(
        """
        import os

        class Long(sengu.Worker):
            def run(self):
                self.log.info("one begins")
                self.stopping.wait()
                os.close(os.open("gate", os.O_RDONLY))
                self.log.info("one is done")
        """
    )
    os.mkfifo(jobs.directory / "gate")
    instance = work(sengu, jobs, "Long")
    old = pid_of(instance)
    instance.wait_for_line("one begins")
    jobs.write(TELLING.replace("class Telling", "class Long"))
    assert instance.cli("reload", "--no-wait").returncode == 0
    instance.wait_for_line(r"\[2/0 \d+\] awesome work")
    assert is_alive(old)
    with (jobs.directory / "gate").open("wb"):
        instance.wait_for_line(rf"\[1/0 {old}\] one is done")
    instance.wait_for_line(rf"\(pid {old}\) exited with exit status 0")
