"""The worker classes of examples/work, run as their page says."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import WAIT_SECONDS, Instance, Sengu, environment
from tests.system.jobs import ENVIRONMENT, logged_by
from tests.system.puppets import is_alive, kill, of_type, pids, wait_until, workers
from tests.system.web import CHECKOUT

EXAMPLES = CHECKOUT / "examples" / "work"
PAGE = (EXAMPLES / "README.md").read_text()
COMMANDS = re.findall(r"`sengu work (.*)` \|$", PAGE, re.M)


@pytest.fixture
def place(free_path: Path) -> Path:
    """A copy that a test may edit."""
    return Path(shutil.copytree(EXAMPLES, free_path / "work"))


def run(sengu: Sengu, place: Path, part: str, *options: str) -> Instance:
    """The page's only command with that in it, when it is ready."""
    (command,) = [one for one in COMMANDS if part in one]
    target, *rest = shlex.split(command)
    return sengu.work(target, *rest, *options, cwd=place, env=ENVIRONMENT).wait_ready()


def with_config(place: Path, **config: object) -> tuple[str, str]:
    path = place / "test.json"
    path.write_text(json.dumps(config))
    return "--config", str(path)


def slots_heard(instance: Instance, pattern: str, count: int) -> set[int]:
    """Slots that log what matches, when there are so many."""

    def found() -> set[int]:
        return {logged_by(line)[1] for line in instance.lines if re.search(pattern, line)}

    wait_until(lambda: len(found()) == count, pattern)
    return found()


def say_hello(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
        return client.makefile().readline()


def test_the_page_has_all_examples_and_each_is_run_here() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {command.partition(":")[0] for command in COMMANDS}
    source = Path(__file__).read_text()
    assert all(f'"{script}' in source for script in scripts)


def test_the_simplest_works_until_it_is_told_to_stop(sengu: Sengu, place: Path) -> None:
    (command, _) = [one for one in COMMANDS if one.startswith("simplest.py")]
    instance = sengu.work(command, cwd=place, env=ENVIRONMENT).wait_ready()
    instance.wait_for_line(r"INFO .* awesome work$")
    assert instance.stop() == 0


def test_the_simplest_is_a_script_that_goes_into_the_background(place: Path) -> None:
    home = environment({"XDG_RUNTIME_DIR": str(place), **ENVIRONMENT})
    command = [sys.executable, "simplest.py"]
    subprocess.run(command, cwd=place, env=home, check=True, timeout=WAIT_SECONDS)
    pid = int((place / "myserver.pid").read_text())
    try:
        log = place / "myserver.log"
        wait_until(lambda: "awesome work" in log.read_text(), "a line")
    finally:
        kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), "its end")
    assert not (place / "myserver.pid").exists()


def test_the_log_goes_to_a_file_as_it_is_asked_for(sengu: Sengu, place: Path) -> None:
    instance = run(sengu, place, "--log-rotate-size")
    wait_until(lambda: "awesome work" in (place / "my.log").read_text(), "a line")
    assert "awesome work" in instance.cli("logs").stdout


@pytest.mark.parametrize(("kind", "processes"), [("", 4), (" --kind thread", 1)])
def test_multiprocess_works_in_four_slots(
    sengu: Sengu, place: Path, kind: str, processes: int
) -> None:
    (command,) = [one for one in COMMANDS if one == f"multiprocess.py:Awesome -w 4{kind}"]
    instance = sengu.work(*shlex.split(command), cwd=place, env=ENVIRONMENT).wait_ready()
    assert slots_heard(instance, r"awesome work in slot \d$", 4) == {0, 1, 2, 3}
    assert len(pids(instance)) == processes
    assert instance.stop() == 0


def test_workers_accept_on_the_socket_of_their_server_class(
    sengu: Sengu, place: Path, port: int
) -> None:
    instance = run(sengu, place, "tcp_server.py", *with_config(place, port=port))
    assert re.fullmatch(r"awesome work in slot [0-3]\n", say_hello(port))
    assert instance.cli("reload").returncode == 0
    assert re.fullmatch(r"awesome work in slot [0-3]\n", say_hello(port))
    assert instance.stop() == 0


def test_programs_are_told_by_their_stdin(sengu: Sengu, place: Path) -> None:
    options = with_config(place, message="marvellous work")
    instance = run(sengu, place, "spawn_pipe.py", *options)
    for slot in (0, 1):
        instance.wait_for_line(f"^marvellous work in slot {slot}$")
    assert instance.cli("reload").returncode == 0
    instance.wait_for_line("^told: GRACEFUL_STOP$")
    assert instance.stop() == 0


def test_what_stalls_or_is_killed_is_replaced(sengu: Sengu, place: Path) -> None:
    instance = run(sengu, place, "auto_restart.py", "--interval", "0.2")
    before = pids(instance)
    instance.wait_for_line(r"in wait_for_nobody$")
    instance.wait_for_line(r"worker 0 of generation 1 started as pid \d+ \(after")
    wait_until(lambda: pids(instance) and not pids(instance) & before, "another worker")
    kill(instance.server_pid)
    instance.wait_event(of_type("server_adopted"))
    seen = len(instance.lines)
    instance.wait_for_line("awesome work", after=seen)


def test_old_workers_finish_their_task_beside_new_ones(sengu: Sengu, place: Path) -> None:
    instance = run(sengu, place, "live_restart.py", *with_config(place, seconds=10))
    old = {int(one["slot"]): int(one["pid"]) for one in workers(instance)}
    slots_heard(instance, "task 1 begins", 2)
    assert instance.cli("reload").returncode == 0
    assert all(map(is_alive, old.values()))
    assert len(pids(instance)) == 4
    done = r"\[1/{} {}\] task \d+ is done"
    for slot, pid in old.items():
        instance.wait_for_line(done.format(slot, pid))
    wait_until(lambda: not any(map(is_alive, old.values())), "their end")
    instance.signal(signal.SIGQUIT)


def test_an_edited_configuration_holds_at_once(sengu: Sengu, place: Path) -> None:
    instance = run(sengu, place, "dynamic_reload.py")
    instance.wait_for_line("awesome work$")
    before = pids(instance)
    assert len(before) == 2
    text = (place / "config.toml").read_text()
    text = text.replace('"awesome work"', '"splendid work"').replace("pause = 1.0", "pause = 0.1")
    (place / "config.toml").write_text(text)
    assert instance.cli("configure").returncode == 0
    assert slots_heard(instance, "splendid work$", 2) == {0, 1}
    assert pids(instance) == before
    (place / "config.toml").write_text(text.replace("splendid", "grand"))
    instance.signal(signal.SIGUSR2)
    instance.wait_for_line("grand work$")
    (place / "config.toml").write_text(text.replace("workers = 2", "workers = 3"))
    assert instance.cli("configure").returncode == 0
    wait_until(lambda: len(pids(instance)) == 3, "a third worker")


def test_workers_that_ask_get_the_same_socket(sengu: Sengu, place: Path, port: int) -> None:
    instance = run(sengu, place, "socket_manager.py", *with_config(place, port=port))
    assert say_hello(port).startswith("awesome work in process ")
    (managed,) = instance.status()["managed"]
    assert managed["address"] == f"127.0.0.1:{port}"
    assert instance.cli("reload").returncode == 0
    assert say_hello(port).startswith("awesome work in process ")
    assert instance.stop() == 0
