"""The runner of a container, and the sweep, with a stand-in for Docker."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import Docker
from tests.support import WAIT_SECONDS, Output
from tests.system.puppets import wait_until

ECHO = "trap 'echo got HUP' HUP; trap 'echo got TERM; exit 7' TERM"
SERVE = f"{ECHO}; echo up $A $B $PATH; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"
STOPPED = 128 + signal.SIGTERM


class Runner:
    """One that was executed as the server does it."""

    def __init__(
        self, docker: Docker, script: str, environ: dict[str, str] | None = None, **order: Any
    ) -> None:
        self.order = {
            "engine": [docker.program],
            "image": "web",
            "args": ["sh", "-c", script],
            "options": [],
            "names": [],
            "env_dir": None,
            "stop_signals": [signal.SIGTERM],
            "grace_seconds": 30.0,
            "ready_seconds": None,
            **order,
        }
        identity = {"SENGU_SERVICE": "my web", "SENGU_GENERATION": "4", "SENGU_SLOT": "2"}
        self.process = subprocess.Popen(
            [*COMMAND, "run", json.dumps(self.order)],
            env={**os.environ, **identity, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = Output(self.process.stdout)

    @property
    def container(self) -> str:
        return f"sengu-my-web-g4-s2-{self.process.pid}"

    def wait_for(self, pattern: str, after: int = 0) -> None:
        self.output.wait_for_line(pattern, WAIT_SECONDS, after)

    def wait(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        self.output.join(WAIT_SECONDS)
        return code

    def kill_client(self) -> None:
        """What runs the engine is the only child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (client,) = children.read_text().split()
        os.kill(int(client), signal.SIGKILL)

    def kill(self) -> None:
        """KILL it and its client, as the server ends a worker's group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


COMMAND = (sys.executable, "-P", "-m", "sengu.container")


@pytest.fixture
def docker(free_path: Path) -> Iterator[Docker]:
    docker = Docker(free_path)
    yield docker
    docker.close()


def sweep(
    docker: Docker, *, now: bool, service: str = "my web"
) -> subprocess.CompletedProcess[str]:
    chore = {"engine": [docker.program], "service": service, "now": now}
    return subprocess.run(
        [*COMMAND, "sweep", json.dumps(chore)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def count(docker: Docker, verb: str) -> int:
    return sum(call[0] == verb for call in docker.calls)


def test_a_container_ends_with_its_own_code_and_is_removed(docker: Docker) -> None:
    runner = Runner(docker, "echo hello; exit 3")
    assert runner.wait() == 3
    assert runner.output.lines == ["hello"]
    assert docker.names == []


def test_signals_reach_the_container(docker: Docker) -> None:
    runner = Runner(docker, SERVE)
    runner.wait_for("up")
    runner.process.send_signal(signal.SIGHUP)
    runner.wait_for("got HUP")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 7
    assert runner.output.lines[-1] == "got TERM"
    assert docker.names == []


def test_a_container_is_followed_when_its_client_is_killed(docker: Docker) -> None:
    runner = Runner(docker, SERVE)
    runner.wait_for("up")
    runner.kill_client()
    runner.wait_for("following it by another")
    wait_until(lambda: docker.calls[-1][0] == "attach", "another client")
    runner.process.send_signal(signal.SIGHUP)
    runner.wait_for("got HUP")
    assert docker.facts(runner.container)["status"] == "running"
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 7
    assert docker.names == []


def test_a_container_that_ends_while_its_client_is_dead_is_not_lost(docker: Docker) -> None:
    runner = Runner(docker, SERVE)
    runner.wait_for("up")
    os.kill(runner.process.pid, signal.SIGSTOP)
    runner.kill_client()
    os.kill(docker.facts(runner.container)["pid"], signal.SIGTERM)
    wait_until(lambda: docker.facts(runner.container)["status"] == "exited", "its end")
    os.kill(runner.process.pid, signal.SIGCONT)
    assert runner.wait() == 7
    assert docker.names == []


def test_one_that_does_not_stop_is_killed_before_the_grace_is_over(docker: Docker) -> None:
    runner = Runner(docker, DEAF, grace_seconds=1.0)
    runner.wait_for("up")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 128 + signal.SIGKILL
    assert "has not ended in time" in str(runner.output)
    assert docker.names == []


def test_a_stop_while_it_is_being_made_ends_that(docker: Docker) -> None:
    os.mkfifo(docker.directory / "making")
    runner = Runner(docker, SERVE)
    wait_until(lambda: any(call[0] == "run" for call in docker.calls), "the client")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == STOPPED
    assert docker.names == []


def test_signal_stop_and_grace_are_passed_on(docker: Docker) -> None:
    stops = [int(signal.SIGQUIT), int(signal.SIGTERM)]
    runner = Runner(docker, "exit 0", stop_signals=stops, grace_seconds=4.2)
    assert runner.wait() == 0
    (run,) = [call for call in docker.calls if call[0] == "run"]
    assert run[run.index("--stop-signal") + 1] == str(int(signal.SIGQUIT))
    assert run[run.index("--stop-timeout") + 1] == "5"


def test_it_is_ready_when_it_has_run_for_so_long(docker: Docker, free_path: Path) -> None:
    making = docker.directory / "making"
    os.mkfifo(making)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(free_path / "notify"))
        server.settimeout(WAIT_SECONDS)
        environ = {"NOTIFY_SOCKET": str(free_path / "notify")}
        runner = Runner(docker, SERVE, environ, ready_seconds=0.2)
        wait_until(lambda: count(docker, "container") >= 2, "it looks whether it runs")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)
        making.write_text("go on")
        server.settimeout(WAIT_SECONDS)
        assert server.recv(100) == b"READY=1"
    assert docker.facts(runner.container)["status"] == "running"
    looks = count(docker, "container")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 7
    assert count(docker, "container") <= looks + 1


def test_values_of_variables_are_in_nobodys_arguments(docker: Docker, free_path: Path) -> None:
    (free_path / "FROM_DIR").touch()
    environ = {
        "A": "secret-a",
        "FROM_DIR": "secret-dir",
        "SENGU_CONTAINER_ENV": json.dumps({"B": "secret b", "PATH": "/bin:/usr/bin:/secret"}),
    }
    contract = "$SENGU_SERVICE $SENGU_GENERATION $SENGU_SLOT $SENGU_RUNNER"
    script = f"echo up $A $B $FROM_DIR {contract} $PATH $HOME."
    names = ["A", "B", "PATH"]
    runner = Runner(docker, script, environ, names=names, env_dir=str(free_path))
    assert runner.wait() == 0
    expected = (
        f"up secret-a secret b secret-dir my web 4 2 {runner.process.pid} /bin:/usr/bin:/secret ."
    )
    assert runner.output.lines == [expected]
    assert "secret" not in json.dumps(docker.calls)


def test_a_daemon_that_is_down_is_told_in_its_clients_words(docker: Docker) -> None:
    docker.stop_daemon()
    runner = Runner(docker, SERVE)
    assert runner.wait() == 125
    assert "Is the docker daemon running?" in str(runner.output)


def test_an_image_that_is_not_there_is_told_in_the_engines_words(docker: Docker) -> None:
    runner = Runner(docker, SERVE, image="nothing")
    assert runner.wait() == 125
    assert "No such image: nothing" in str(runner.output)


def test_an_engine_that_is_not_installed_any_more_is_told(docker: Docker) -> None:
    runner = Runner(docker, SERVE, engine=["/nowhere/docker"])
    assert runner.wait() == 127
    assert "cannot run /nowhere/docker: No such file or directory" in str(runner.output)


@pytest.mark.parametrize("now", [True, False])
def test_a_sweep_takes_containers_without_a_runner_and_no_others(docker: Docker, now: bool) -> None:
    killed = Runner(docker, SERVE)
    killed.wait_for("up")
    pidfd = os.pidfd_open(docker.facts(killed.container)["pid"])
    killed.kill()
    living = Runner(docker, SERVE)
    living.wait_for("up")
    assert sweep(docker, now=now, service="another").stderr == ""
    done = sweep(docker, now=now)
    assert (done.returncode, done.stdout) == (0, "")
    assert (
        done.stderr
        == f"sengu: container: removed containers whose runner was killed: {killed.container}\n"
    )
    assert select.select([pidfd], [], [], 0)[0]
    os.close(pidfd)
    assert docker.names == [living.container]
    assert ("stop" in [call[0] for call in docker.calls]) is not now
    living.process.send_signal(signal.SIGTERM)
    assert living.wait() == 7


def test_a_sweep_leaves_runners_alone_that_it_cannot_see(docker: Docker) -> None:
    runner = Runner(docker, SERVE)
    runner.wait_for("up")
    runner.kill()
    facts = docker.facts(runner.container)
    facts["labels"]["sengu.runner"] = f"1/{runner.process.pid}/1"  # of another pid namespace
    (docker.directory / f"{runner.container}.json").write_text(json.dumps(facts))
    assert sweep(docker, now=True).returncode == 0
    assert docker.names == [runner.container]


def test_a_sweep_that_cannot_ask_says_so(docker: Docker) -> None:
    docker.stop_daemon()
    done = sweep(docker, now=True)
    assert done.returncode == 1
    assert "cannot look for containers without a runner: Cannot connect" in done.stderr
