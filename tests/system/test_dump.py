"""`sengu dump`, and CONT: where all Python processes are, in the terminal and in the log."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import Sengu, needs_root
from tests.system.jobs import ENVIRONMENT, Jobs, work
from tests.system.puppets import is_alive, kill, of_type, pids, wait_busy, wait_until, workers
from tests.system.web import fork_server

THREADED = """
import threading

class Threaded(sengu.Worker):
    def setup(self):
        threading.Thread(target=self.look_around, name="look-out", daemon=True).start()

    def look_around(self):
        self.log.info("looks around")
        self.stopping.wait()

    def run(self):
        self.wait_for_work()

    def wait_for_work(self):
        self.log.info("waits for work")
        self.stopping.wait()
"""


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    return Jobs(free_path)


def reports(text: str) -> dict[int, str]:
    """By pid, what each process has said, the lines of others left out."""
    found: dict[int, list[str]] = {}
    pid = 0
    for line in text.splitlines():
        if line.startswith("sengu: where "):
            pid = int(line.removesuffix(":").rpartition(" ")[2])
            found[pid] = []
        if pid:
            found[pid].append(line)
        if line.startswith("sengu: that was"):
            pid = 0
    return {pid: "\n".join(lines) for pid, lines in found.items()}


def test_all_processes_tell_their_stacks_and_their_memory(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded", "-w", "2")
    for worker in pids(instance):  # they are ready before they run
        instance.wait_for_line(f" {worker}\\] looks around$")
        instance.wait_for_line(f" {worker}\\] waits for work$")
    result = instance.cli("dump")
    assert result.returncode == 0
    told = reports(result.stdout)
    assert told.keys() == pids(instance) | {instance.server_pid, fork_server(instance)}
    for text in told.values():
        assert "MiB resident" in text
        assert "objects: " in text
        assert "thread MainThread" in text
    for worker in pids(instance):
        assert "in wait_for_work" in told[worker]
        assert "thread look-out" in told[worker]
        assert "in look_around" in told[worker]
    assert result.stdout.startswith(f"sengu: main process, pid {instance.pid}: memory: ")
    for one in workers(instance):
        assert f"worker {one['slot']} gen 1 ({one['pid']})" in result.stdout


def test_the_log_has_it_too(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    log = jobs.directory / "jobs.log"
    instance = work(sengu, jobs, "Threaded", "-w", "2", "--log-file", str(log))
    shown = reports(instance.cli("dump").stdout)
    wait_until(lambda: log.read_text().count("\nsengu: that was pid ") == len(shown), "their ends")
    assert reports(log.read_text()).keys() == shown.keys()
    for pid in pids(instance):
        assert reports(log.read_text())[pid] == shown[pid]


def test_tasks_are_told_down_to_what_they_await(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(
        """
        import asyncio

        class Tasks(sengu.Worker):
            async def run(self):
                task = asyncio.create_task(self.fetch(), name="fetcher")
                await asyncio.sleep(0)
                self.log.info("it fetches")
                await self.stopping.async_wait()
                task.cancel()

            async def fetch(self):
                await self.fetch_page()

            async def fetch_page(self):
                await asyncio.Event().wait()
        """
    )
    instance = work(sengu, jobs, "Tasks", "--kind", "async")
    (pid,) = pids(instance)
    instance.wait_for_line("it fetches$")
    told = reports(instance.cli("dump").stdout)[pid]
    fetcher = told.partition("  task fetcher:\n")[2]
    assert (
        fetcher.index("in fetch\n") < fetcher.index("in fetch_page\n") < fetcher.index("in wait\n")
    )


def test_cont_to_the_main_process_dumps_to_the_log(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded")
    instance.signal(signal.SIGCONT)
    for pid in (*pids(instance), instance.server_pid, fork_server(instance)):
        instance.wait_for_line(f"^sengu: that was pid {pid}$")


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGCONT), (signal.SIGCONT, signal.SIGTERM)]
)
def test_the_cont_that_comes_with_a_term_dumps_nothing(
    sengu: Sengu, jobs: Jobs, numbers: tuple[signal.Signals, ...]
) -> None:
    """As systemd and timeout(1) send it."""
    jobs.write(
        """
        class Slow(sengu.Worker):
            def run(self):
                self.stopping.wait()

            def teardown(self):
                while not os.path.exists("end"):
                    time.sleep(0.01)
        """.replace("class", "import os, time\n        class", 1)
    )
    instance = work(sengu, jobs, "Slow")
    for number in numbers:
        instance.signal(number)
    instance.wait_for_line("is asked to stop by TERM")
    assert instance.cli("dump").returncode == 0, "who asks for it gets it"
    (jobs.directory / "end").touch()
    assert instance.wait() == 0
    assert sum(line.startswith("sengu: main process") for line in instance.lines) == 1


def test_cont_to_a_worker_is_about_that_one(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded", "-w", "2")
    one, other = pids(instance)
    kill(one, signal.SIGCONT)
    instance.wait_for_line(f"^sengu: that was pid {one}$")
    assert instance.cli("status").returncode == 0
    assert f"sengu: that was pid {other}" not in instance.lines


def test_a_worker_that_was_stopped_and_continued_dumps_once(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded")
    (pid,) = pids(instance)
    kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T", "it stands")
    kill(pid, signal.SIGCONT)
    instance.wait_for_line(f"^sengu: that was pid {pid}$")
    assert instance.lines.count(f"sengu: that was pid {pid}") == 1


def test_of_one_that_never_comes_back_to_python_there_are_the_stacks(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(
        """
        import itertools

        class Stuck(sengu.Worker):
            def run(self):
                self.spin()

            def spin(self):
                self.log.info("spins")
                sum(itertools.repeat(1))  # a loop in C, which never lets go of the interpreter
        """
    )
    instance = work(sengu, jobs, "Stuck", "--heartbeat-timeout", "0", "--grace", "0.2")
    (pid,) = pids(instance)
    instance.wait_for_line("spins$")
    wait_busy(pid)
    head = f"sengu: worker 0 gen 1, pid {pid}: memory: "
    text = instance.cli("dump").stdout.partition(head)[2]
    assert "  it has not answered within 2 s; what it was at" in text
    assert "in spin" in text
    instance.wait_for_line(
        r'^  File "jobs.py", line \d+ in spin$|^    File ".*jobs.py", .* in spin$'
    )
    assert is_alive(pid)


def test_children_of_a_worker_have_the_default_back(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(
        """
        import os

        class Parent(sengu.Worker):
            def run(self):
                child = os.fork()
                if child == 0:
                    print("child", os.getpid(), flush=True)
                    self.stopping.wait()
                    os._exit(0)
                self.stopping.wait()
                os.kill(child, 9)
                os.waitpid(child, 0)
        """
    )
    instance = work(sengu, jobs, "Parent")
    child = int(instance.wait_for_line(r"^child (\d+)$")[1])
    status = Path(f"/proc/{child}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    assert not int(caught.split()[1], 16) >> (signal.SIGCONT - 1) & 1
    kill(child, signal.SIGCONT)
    instance.cli("dump")
    assert f"sengu: that was pid {child}" not in instance.lines


def test_a_dump_goes_on_when_the_server_that_was_asked_is_killed(sengu: Sengu, jobs: Jobs) -> None:
    """Its successor has the same workers, which write to where it looks."""
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded", "-w", "2")
    kill(instance.server_pid)
    instance.wait_event(of_type("server_adopted"))
    told = reports(instance.cli("dump").stdout)
    assert pids(instance) < told.keys()


def test_a_program_that_is_not_ours_is_named_and_hears_nothing(
    sengu: Sengu, free_path: Path
) -> None:
    program = "import signal, sys\nfor n in iter(lambda: signal.sigwait({18, 15}), 15): print(n)"
    instance = sengu.start("--", sys.executable, "-c", program).wait_ready()
    (pid,) = pids(instance)
    assert f"sengu: worker 0 gen 1, pid {pid}: memory: " in instance.cli("dump").stdout
    assert "18" not in instance.lines


def test_a_program_of_kind_spawn_is_told_by_its_pipe(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(
        """
        import sys

        class Program(sengu.Worker):
            def command(self):
                code = "for line in open(0):\\n    print('heard', line.strip(), flush=True)\\n" \\
                    "    if 'STOP' in line: break"
                return [sys.executable, "-c", code]
        """
    )
    instance = work(sengu, jobs, "Program", "--kind", "spawn", "--command-pipe")
    assert "in wait" in instance.cli("dump").stdout
    instance.wait_for_line("^heard DUMP$")


WSGI = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""
ASGI = """
import asyncio

async def wait_for_mail():
    await asyncio.Event().wait()

async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return
    await receive()
    task = asyncio.create_task(wait_for_mail())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    task.cancel()
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.parametrize(("source", "sign"), [(WSGI, "thread MainThread"), (ASGI, "wait_for_mail")])
def test_web_workers_hear_it_too(sengu: Sengu, free_path: Path, source: str, sign: str) -> None:
    (free_path / "web.py").write_text(source)
    instance = sengu.serve(
        "web:app", "--listen", "127.0.0.1:0", "-w", "2", cwd=free_path, env=ENVIRONMENT
    ).wait_ready()
    told = reports(instance.cli("dump").stdout)
    for pid in pids(instance):
        assert sign in told[pid]


def test_workers_of_another_user_answer_all_the_same(sengu: Sengu, jobs: Jobs) -> None:
    needs_root()
    jobs.directory.chmod(0o755)
    jobs.write(THREADED)
    jobs.script.chmod(0o644)
    instance = work(sengu, jobs, "Threaded", "--user", "nobody")
    (pid,) = pids(instance)
    instance.wait_for_line("waits for work$")
    told = reports(instance.cli("dump").stdout)[pid]
    assert "MiB resident" in told
    assert "in wait_for_work" in told


def test_those_who_ask_at_once_are_told_the_same(sengu: Sengu, jobs: Jobs) -> None:
    jobs.write(THREADED)
    instance = work(sengu, jobs, "Threaded", "-w", "8")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: instance.cli("dump"), range(4)))
    for result in results:
        assert result.returncode == 0
        assert pids(instance) < reports(result.stdout).keys()


def test_a_worker_that_waits_in_c_is_told_of_with_its_tasks(sengu: Sengu, jobs: Jobs) -> None:
    """Its main thread does not come back to Python, but lets others run."""
    jobs.write(
        """
        import ctypes

        class Waiting(sengu.Worker):
            def run(self):
                self.wait_in_c()

            def wait_in_c(self):
                self.log.info("waits")
                mask = (ctypes.c_byte * 128)(*[-1] * 128)
                libc = ctypes.CDLL(None)
                libc.pthread_sigmask(0, mask, None)  # so that nothing wakes it
                libc.sleep(3600)
        """
    )
    instance = work(sengu, jobs, "Waiting", "--grace", "0.2")
    (pid,) = pids(instance)
    instance.wait_for_line("waits$")
    told = reports(instance.cli("dump").stdout)[pid]
    assert "objects: " in told
    assert "in wait_in_c" in told
