"""--pre-deploy: what it says, how it fails, and that it is never run twice for a generation."""

import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import (
    Clients,
    CommandInThread,
    Gate,
    Script,
    ask,
    is_alive,
    kill,
    last_event,
    of_type,
    pids,
    wait_until,
    workers,
)
from tests.system.web import Site, fork_server, fork_servers, serve
from tests.system.web import ask as ask_site

FAILED = 1
SUPERSEDED = 4


class Command:
    """A script to run before each generation; it notes for which it was run."""

    def __init__(self, directory: Path, name: str = "migrate") -> None:
        self.path = directory / name
        self._runs = directory / f"{name}.runs"
        self.write()
        self.path.chmod(0o755)

    def write(self, *lines: str) -> None:
        note = f'echo "$SENGU_GENERATION $$" >>{self._runs}'
        self.path.write_text("\n".join(("#!/bin/sh", note, *lines, "")))

    @property
    def option(self) -> tuple[str, str]:
        return "--pre-deploy", f"{self.path} --now"

    @property
    def runs(self) -> list[int]:
        """The generations that it was run for."""
        return [generation for generation, _ in self._noted()]

    @property
    def pid(self) -> int:
        """Of its last run."""
        return self._noted()[-1][1]

    def _noted(self) -> list[tuple[int, int]]:
        lines = self._runs.read_text().splitlines() if self._runs.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


@pytest.fixture
def command(free_path: Path) -> Command:
    return Command(free_path)


def start(sengu: Sengu, port: int, script: Script, command: Command, *options: str) -> Instance:
    return sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--attempts", "1"),
        *(*command.option, *options, *script.command),
    )


def test_it_runs_before_each_generation_in_order_and_what_it_says_is_in_the_log(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    second = Command(free_path, "second")
    command.write("sleep 0.1", "echo said", "echo complained >&2")
    second.write('test "$(wc -l <migrate.runs)" = "$SENGU_GENERATION"', "pwd")
    options = (*second.option, "--dir", str(free_path))
    instance = start(sengu, port, script, command, *options).wait_ready()
    assert instance.cli("reload").returncode == 0
    assert (command.runs, second.runs) == ([1, 2], [1, 2])
    # What was said before is read as well then.
    instance.wait_for_line("second --now' of generation 2 is done")
    assert [instance.lines.count(line) for line in ("said", "complained", str(free_path))] == [
        2
    ] * 3
    first_done = next(n for n, line in enumerate(instance.lines) if "generation 1 is done" in line)
    assert instance.lines.index("complained") < first_done, "the log is in order"


def test_one_that_fails_keeps_the_old_generation_and_its_words_are_told(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    second = Command(free_path, "second")
    instance = start(sengu, port, script, command, *second.option).wait_ready()
    command.write("echo trying", "echo no such table >&2", "exit 3")
    with Clients(port) as clients:
        reload = instance.cli("reload")
        clients.wait_for_answers()
    assert reload.returncode == FAILED
    problem = f"--pre-deploy '{command.path} --now' ended with exit status 3"
    assert f"aborted: {problem}; generation 1 keeps serving" in reload.stderr
    assert "  | trying\n  | no such table\n" in reload.stderr
    assert {answer.generation for answer in clients.answers} == {1}
    assert second.runs == [1]
    assert not any("of generation 2 started" in line for line in instance.lines)
    command.write()
    assert instance.cli("reload", "--drained").returncode == 0
    assert ask(port).generation == 3


def test_a_first_start_that_fails_at_it_exits_with_the_reason(
    sengu: Sengu, port: int, script: Script, command: Command
) -> None:
    command.write("echo no such table", "exit 3")
    instance = start(sengu, port, script, command)
    assert instance.wait() == FAILED
    instance.wait_for_line("^no such table$")
    instance.wait_for_line("sengu: error: generation 1 did not come up: --pre-deploy .* status 3")


def test_a_daemons_first_start_that_fails_at_it_tells_the_terminal(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    command.write("echo no such table", "exit 3")
    files = ("--control", str(free_path / "control"), "--log-file", str(free_path / "log"))
    options = ("--port", f"127.0.0.1:{port}", "--ready", "notify", *command.option)
    done = sengu.run("start", "--daemonize", *files, *options, *script.command)
    assert done.returncode == FAILED
    assert "--now' ended with exit status 3" in done.stderr
    assert "  | no such table\n" in done.stderr


def test_one_that_takes_too_long_is_asked_to_stop_and_killed_with_all_it_runs(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    options = ("--pre-deploy-timeout", "5", "--grace", "5")
    instance = start(sengu, port, script, command, *options).wait_ready()
    gate = Gate(free_path)
    command.write("trap 'echo asked' TERM", f"while :; do cat {gate.path}; done")
    reload = instance.cli("reload")
    assert reload.returncode == FAILED
    assert "--now' was not done within 5 s" in reload.stderr
    assert "  | asked\n" in reload.stderr
    instance.wait_for_line("is killed: still there at the end of its grace period")
    assert not is_alive(command.pid)
    assert ask(port).generation == 1


def test_a_later_deploy_ends_it_and_waits_for_its_end(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    instance = start(sengu, port, script, command).wait_ready()
    gate, farewell = Gate(free_path), Gate(free_path, "farewell")
    command.write(f"trap 'cat {farewell.path}; exit 1' TERM", f"cat {gate.path}")
    first = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    command.write()
    second = CommandInThread(instance, "reload")
    farewell.wait_for_somebody()
    assert first.result().returncode == SUPERSEDED
    assert command.runs == [1, 2], "no migration beside another"
    farewell.open()
    assert second.result().returncode == 0
    assert command.runs == [1, 2, 3]
    wait_until(lambda: ask(port).generation == 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_ends_it(
    sengu: Sengu,
    port: int,
    script: Script,
    command: Command,
    free_path: Path,
    number: signal.Signals,
) -> None:
    instance = start(sengu, port, script, command).wait_ready()
    gate = Gate(free_path)
    command.write(f"cat {gate.path}")
    reload = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    instance.signal(number)
    assert reload.result().returncode == FAILED
    assert instance.wait() == 0
    assert not is_alive(command.pid)


@pytest.mark.parametrize("ends", ["while no server is there", "later"])
def test_a_server_that_is_killed_meanwhile_has_it_run_once(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path, ends: str
) -> None:
    second = Command(free_path, "second")
    instance = start(sengu, port, script, command, *second.option).wait_ready()
    gate = Gate(free_path)
    command.write(f"cat {gate.path}", "echo done by now")
    reload = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    if ends == "later":
        kill(instance.server_pid)
        instance.wait_for_line("has taken over")
        gate.open()
    else:
        instance.signal(signal.SIGSTOP)  # no next server before it has ended
        pid = instance.server_pid
        kill(pid)
        gate.open()
        wait_until(lambda: not is_alive(command.pid))
        instance.signal(signal.SIGCONT)
    assert reload.result().returncode == 0
    assert (command.runs, second.runs) == ([1, 2], [1, 2])
    wait_until(lambda: ask(port).generation == 2)
    instance.wait_for_line("^done by now$")


def test_an_upgrade_meanwhile_has_it_run_once(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    instance = start(sengu, port, script, command).wait_ready()
    gate = Gate(free_path)
    command.write(f"cat {gate.path}")
    reload = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    upgrade = instance.cli("upgrade")
    assert upgrade.returncode == 0, upgrade.stderr
    gate.open()
    assert reload.result().returncode == 0
    assert command.runs == [1, 2]


def test_a_server_that_is_killed_meanwhile_hears_that_it_has_failed(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    instance = start(sengu, port, script, command).wait_ready()
    gate = Gate(free_path)
    command.write(f"cat {gate.path}", "echo no such table", "exit 3")
    reload = CommandInThread(instance, "reload")
    gate.wait_for_somebody()
    kill(instance.server_pid)
    gate.open()
    done = reload.result()
    assert done.returncode == FAILED
    assert "--now' ended with exit status 3" in done.stderr
    assert "  | no such table\n" in done.stderr
    assert command.runs == [1, 2]


def test_what_it_writes_into_the_envdir_is_its_generations(
    sengu: Sengu, port: int, script: Script, command: Command, free_path: Path
) -> None:
    envdir = free_path / "env"
    envdir.mkdir()
    command.write(f"echo 600 >{envdir}/KILL_OLD_DELAY")
    second = Command(free_path, "second")
    second.write('echo "delay $KILL_OLD_DELAY"')
    options = ("--envdir", str(envdir), *second.option)
    instance = start(sengu, port, script, command, *options).wait_ready()
    instance.wait_for_line("^delay 600$")
    assert instance.cli("reload").returncode == 0
    assert len({worker["generation"] for worker in workers(instance)}) == 2


def test_an_application_that_must_not_be_is_not_imported(
    sengu: Sengu, site: Site, port: int, command: Command
) -> None:
    instance = serve(sengu, site, port, *command.option)
    command.write("exit 3")
    site.release("two")
    assert instance.cli("reload").returncode == FAILED
    assert (ask_site(port).version, command.runs) == ("one", [1, 2])
    command.write()
    assert instance.cli("reload", "--drained").returncode == 0
    assert (ask_site(port).version, command.runs) == ("two", [1, 2, 3])


def test_a_fork_server_that_is_brought_back_does_not_run_it_again(
    sengu: Sengu, site: Site, port: int, command: Command
) -> None:
    instance = serve(sengu, site, port, *command.option, "--workers", "1")
    kill(fork_server(instance))
    instance.wait_event(of_type("generation_lost"))
    since = last_event(instance)
    kill(min(pids(instance)))
    instance.wait_event(of_type("worker_ready"), since=since)
    assert len(fork_servers(instance)) == 1
    assert command.runs == [1]
