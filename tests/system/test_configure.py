"""`sengu configure`: another configuration while workers run, and what is wrong with one."""

import importlib.util
import re
import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, give_up, needs_root
from tests.system.jobs import Jobs, work
from tests.system.puppets import children, kill, last_event, of_type, pids, wait_until, workers

TELLING = """
import os

class Telling(sengu.Worker):
    def setup(self):
        self.log.info("begins with %s", self.config.get("n"))
    def run(self):
        while not self.stopping.wait(0.05):
            self.log.debug("a detail of %d", os.getpid())
    def reload(self):
        self.log.info("goes on with %s", self.config.get("n"))

class Async(sengu.Worker):
    async def run(self):
        await self.stopping.async_wait()
    async def reload(self):
        import asyncio
        name = asyncio.current_task().get_loop().__class__.__name__
        self.log.info("goes on with %s in %s", self.config.get("n"), name)

class Threaded(Telling):
    pass

def read():
    with open("n") as stream:
        return {"n": int(stream.read())}
"""


@pytest.fixture
def jobs(free_path: Path) -> Jobs:
    made = Jobs(free_path)
    made.write(TELLING)
    return made


def put(jobs: Jobs, name: str, text: str) -> None:
    new = jobs.directory / f"{name}.new"
    new.write_text(text)
    new.rename(jobs.directory / name)


def configure(instance: Instance, code: int = 0) -> str:
    """What the verb says, in one line."""
    done = instance.cli("configure")
    assert done.returncode == code, done.stderr
    said = done.stdout if code == 0 else done.stderr
    assert said.count("\n") == 1, said
    return said.strip()


def wait_for(instance: Instance, line: str, count: int = 1) -> None:
    def look() -> bool:
        return sum(bool(re.search(line, one)) for one in instance.lines) >= count

    wait_until(look, f"{count} times {line!r}")


def fork_server_of(instance: Instance) -> int:
    for pid in children(instance.pid):
        if b"fork server" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("there is no fork server")


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("jobs.toml", "n = 1", "n = 2"),
        ("jobs.json", '{"n": 1}', '{"n": 2}'),
        ("jobs.yaml", "n: 1", "n: 2"),
    ],
)
def test_workers_go_on_with_what_is_in_the_file_now(
    sengu: Sengu, jobs: Jobs, name: str, one: str, two: str
) -> None:
    if name.endswith("yaml") and importlib.util.find_spec("yaml") is None:
        give_up("PyYAML is not installed")
    put(jobs, name, one)
    instance = work(sengu, jobs, "Telling", "-w", "2", "--config", name)
    wait_for(instance, "begins with 1", 2)
    before = pids(instance)
    put(jobs, name, two)
    assert configure(instance) == "workers have the new configuration"
    wait_for(instance, "goes on with 2", 2)
    assert pids(instance) == before
    assert configure(instance) == "nothing has changed in the configuration"
    assert sum("goes on" in line for line in instance.lines) == 2


def test_a_function_is_called_afresh(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "n", "1")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.py:read")
    wait_for(instance, "begins with 1")
    put(jobs, "n", "2")
    configure(instance)
    wait_for(instance, "goes on with 2")
    put(jobs, "n", "two")
    said = configure(instance, code=1)
    assert "jobs.py:read() failed: ValueError: invalid literal for int()" in said


def test_an_async_worker_hears_of_it_in_its_loop(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1")
    instance = work(sengu, jobs, "Async", "--kind", "async", "--config", "jobs.toml")
    put(jobs, "jobs.toml", "n = 2")
    configure(instance)
    wait_for(instance, "goes on with 2 in .*EventLoop")


def test_all_threads_of_a_process_get_it(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\nworkers = 3\n")
    instance = work(sengu, jobs, "Threaded", "--kind", "thread", "--config", "jobs.toml")
    wait_for(instance, "begins with 1", 3)
    put(jobs, "jobs.toml", "n = 2\nworkers = 4\n")
    said = configure(instance)
    assert said == "workers have the new configuration; workers 4 needs a restart"
    wait_for(instance, "goes on with 2", 3)


def test_the_configuration_says_how_many_workers_there_are_and_a_scale_holds_until_it_does_anew(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\nworkers = 2\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    assert len(workers(instance)) == 2
    put(jobs, "jobs.toml", "n = 1\nworkers = 3\n")
    assert configure(instance) == "workers have the new configuration; workers 2 -> 3"
    wait_until(lambda: len(pids(instance)) == 3, "three workers")
    instance.cli("scale", "1")
    put(jobs, "jobs.toml", "n = 2\nworkers = 3\n")
    configure(instance)
    assert instance.status()["workers_wanted"] == 1


def test_what_is_wrong_is_refused_with_its_path_and_all_goes_on_as_it_was(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\nworkers = 2\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    before, path = pids(instance), jobs.directory / "jobs.toml"
    for wrong, said in [
        ("n = 2\nworkers = -3\n", rf"{path}: workers: '-3' is not a whole number from 1 to"),
        ("n = 2\nlog_level = 'loud'\n", rf"{path}: log_level: 'loud' is no level; write trace"),
        ("n = 2\ngrace = [1]\n", rf"{path}: grace is a list, and has to be a duration"),
        ("n = 2\nd = 2026-11-27\n", rf"{path}: d is a date, which cannot be handed to workers"),
        ("n = 2\nd = [1, nan]\n", rf"{path}: d\[1\] is nan, which is no number that JSON has"),
        ("n = \n", rf"the configuration {path} is wrong: "),
        ("n = 2\nstop_escalation = 'TERM:60'", rf"{path}: --stop-escalation has a signal after 60"),
    ]:
        put(jobs, "jobs.toml", wrong)
        assert re.search(said, configure(instance, code=1))
    path.unlink()
    assert "cannot read the configuration" in configure(instance, code=1)
    assert pids(instance) == before
    assert not any("goes on" in line for line in instance.lines)
    # Who is started now begins with what was good.
    kill(min(before))
    wait_for(instance, "begins with 1", 3)


def test_a_start_with_a_wrong_setting_fails_and_so_does_a_deploy_while_the_old_goes_on(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\nworkers = -3\n")
    failed = sengu.work("jobs.py:Telling", "--config", "jobs.toml", cwd=jobs.directory)
    assert failed.wait() == 2
    failed.wait_for_line("jobs.toml: workers: '-3' is not a whole number")
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    before = pids(instance)
    put(jobs, "jobs.toml", "n = 1\nworkers = -3\n")
    done = instance.cli("reload")
    assert done.returncode == 1
    assert "jobs.toml: workers: '-3' is not a whole number" in done.stderr
    assert pids(instance) == before


def test_settings_that_can_change_at_once_do_and_others_say_what_they_need(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    options = ("--config", "jobs.toml", "--attempts", "5")
    instance = work(sengu, jobs, "Telling", *options)
    put(
        jobs,
        "jobs.toml",
        "n = 1\nlog-level = 'debug'\ngrace = '7s'\nattempts = 2\nmax_rss = '1g'\ndir = '/'\n",
    )
    said = configure(instance)
    for part in (
        "log-level info -> debug",
        "grace 30 -> 7s",
        "max-rss 1g needs a deploy",
        "dir / needs a restart",
        "attempts 2 does not count: --attempts was given",
    ):
        assert part in said
    (pid,) = pids(instance)
    wait_for(instance, f"DEBUG .* a detail of {pid}")
    put(jobs, "jobs.toml", "n = 1\n")
    assert "log-level debug -> info" in configure(instance)


def test_a_reload_reads_it_afresh(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    put(jobs, "jobs.toml", "n = 2\nworkers = 2\n")
    assert instance.cli("reload").returncode == 0
    wait_for(instance, r"\[2/\d \d+\] begins with 2", 2)


def test_a_server_that_is_killed_has_its_successor_answer(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\nworkers = 2\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    before = pids(instance)
    put(jobs, "jobs.toml", "n = 2\nworkers = 3\n")
    kill(instance.server_pid)
    assert configure(instance) == "workers have the new configuration; workers 2 -> 3"
    kill(instance.server_pid)
    wait_for(instance, "goes on with 2", 2)
    wait_until(lambda: len(pids(instance)) == 3, "three workers")
    assert before < pids(instance)
    assert configure(instance) == "nothing has changed in the configuration"


def test_a_fork_server_that_was_killed_is_started_anew_and_older_workers_hear_it_too(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "-w", "2", "--config", "jobs.toml")
    before, since = pids(instance), last_event(instance)
    kill(fork_server_of(instance))
    instance.wait_event(of_type("generation_lost"), since=since)
    put(jobs, "jobs.toml", "n = 2\n")
    assert configure(instance) == "workers have the new configuration"
    wait_for(instance, "goes on with 2", 2)
    since = last_event(instance)
    kill(fork_server_of(instance))
    instance.wait_event(of_type("generation_lost"), since=since)
    put(jobs, "jobs.toml", "n = 3\n")
    kill(min(before))  # its successor needs a fork server, which reads the file
    wait_for(instance, "begins with 3")
    wait_for(instance, "goes on with 3")


def test_a_function_that_does_not_return_costs_its_fork_server_and_nothing_else(
    sengu: Sengu, jobs: Jobs
) -> None:
    jobs.write(
        TELLING
        + """
import time
def slow():
    while open("n").read() == "wait":
        time.sleep(0.01)
    return {"n": open("n").read()}
"""
    )
    put(jobs, "n", "1")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.py:slow", "--ready-timeout", "5")
    before = pids(instance)
    put(jobs, "n", "wait")
    assert "it was not read within 5 s" in configure(instance, code=1)
    put(jobs, "n", "2")
    assert configure(instance) == "workers have the new configuration"
    wait_for(instance, "goes on with 2")
    assert pids(instance) == before


def test_who_has_no_configuration_says_so(sengu: Sengu, jobs: Jobs) -> None:
    instance = work(sengu, jobs, "Telling")
    assert "this service has no configuration that could be read anew" in configure(instance, 1)


def test_a_request_of_the_same_name_is_answered_and_not_done_twice(
    sengu: Sengu, jobs: Jobs
) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    put(jobs, "jobs.toml", "n = 2\n")
    body = {"wait": True, "token": "once"}
    first = instance.control("POST", "/v1/configure", body)
    put(jobs, "jobs.toml", "n = 3\n")
    second = instance.control("POST", "/v1/configure", body)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    accepted = instance.control("POST", "/v1/configure", {})
    assert accepted.status == 202
    assert accepted.body["inquiry"] == 2
    wait_for(instance, "goes on with 3")


def test_what_is_wrong_is_told_by_the_api_too(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "--config", "jobs.toml")
    put(jobs, "jobs.toml", "workers = 0\n")
    answer = instance.control("POST", "/v1/configure", {"wait": True})
    assert answer.status == 409
    assert "workers: '0' is not a whole number" in answer.body["error"]


def test_a_signal_asks_for_it_too_in_serverengines_profile(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    options = ("--config", "jobs.toml", "--signals", "serverengine")
    instance = work(sengu, jobs, "Telling", *options)
    put(jobs, "jobs.toml", "n = 2\nworkers = 2\n")
    instance.signal(signal.SIGUSR2)
    wait_for(instance, "goes on with 2")
    wait_for(instance, "begins with 2")


def test_workers_that_load_the_class_themselves_get_it_as_well(sengu: Sengu, jobs: Jobs) -> None:
    put(jobs, "jobs.toml", "n = 1\n")
    instance = work(sengu, jobs, "Telling", "--no-preload", "--config", "jobs.toml")
    put(jobs, "jobs.toml", "n = 2\nworkers = 2\n")
    configure(instance)
    wait_for(instance, "goes on with 2")
    wait_for(instance, "begins with 2")


def test_who_becomes_another_user_reads_it_as_that_user(sengu: Sengu, jobs: Jobs) -> None:
    needs_root()
    jobs.directory.chmod(0o755)
    put(jobs, "jobs.toml", "n = 1\n")
    (jobs.directory / "jobs.toml").chmod(0o644)
    instance = work(sengu, jobs, "Telling", "--user", "nobody", "--config", "jobs.toml")
    (jobs.directory / "jobs.toml").chmod(0o600)
    assert "Permission denied" in configure(instance, code=1)
