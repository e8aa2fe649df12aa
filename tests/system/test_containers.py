"""Containers as workers: real ones by Podman; what only a daemon does, by a stand-in for Docker."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docker import Docker
from tests.support import Instance, Sengu, needs_root
from tests.system.container import Podman, make_small_root
from tests.system.load import HTTP_REQUEST, Address, Load, ask
from tests.system.puppets import build, children, is_alive, wait_until, workers

SERVE = "trap 'echo got TERM; exit 0' TERM; echo up $SENGU_SLOT; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"
EXAMPLES = Path(__file__).parents[2] / "examples/container"


@pytest.fixture
def podman(sengu: Sengu, free_path: Path) -> Iterator[Podman]:
    needs_root()
    podman = Podman(free_path)
    make_small_root(free_path / "root")
    podman.make_image(free_path / "root", [])
    podman.try_out()
    yield podman
    for instance in sengu.instances:
        instance.close()
    left = podman.names()
    if left:
        podman("rm", "--force", "--time", "0", *left)
    podman("rmi", "--all", "--force")
    assert left == [], "no container outlives its service"


@pytest.fixture
def docker(sengu: Sengu, free_path: Path) -> Iterator[Docker]:
    docker = Docker(free_path)
    yield docker
    for instance in sengu.instances:
        instance.close()
    left = docker.names
    docker.close()
    assert left == [], "no container outlives its service"


def start(
    sengu: Sengu, podman: Podman, *options: str, script: str = SERVE, name: str = "web"
) -> Instance:
    instance = sengu.start(
        *("--container", "web", "--engine", shlex.join(podman.engine)),
        *(f"--engine-option={shlex.join(podman.limits)}", "--interval", "1", *options),
        *("--", "/bin/sh", "-c", script),
        name=name,
    )
    instance.wait_ready()
    instance.wait_for_line("^up")
    # The first sweep, for what others may have left, would take what a test is about to kill.
    wait_until(lambda: not is_sweeping(instance), "the first sweep is over")
    return instance


def is_sweeping(instance: Instance) -> bool:
    """Or may be about to: who has the main process's words yet has just been forked."""
    own = Path(f"/proc/{instance.pid}/cmdline").read_bytes()
    for pid in children(instance.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if words == own or b"\0sweep\0" in words:
                return True
    return False


def wait_up(instance: Instance, since: int = 0) -> None:
    """Until two containers obey TERM."""
    for slot in (0, 1):
        instance.wait_for_line(f"^up {slot}$", after=since)


def runner(instance: Instance) -> int:
    (worker,) = workers(instance)
    return int(worker["pid"])


def container(instance: Instance, slot: int = 0) -> str:
    """The name of the slot's container."""
    (worker,) = [worker for worker in workers(instance) if worker["slot"] == slot]
    return f"sengu-web-g{worker['generation']}-s{slot}-{worker['pid']}"


def runner_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def client_of(pid: int) -> int:
    """What runs the engine is a runner's only child."""
    (client,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(client)


def test_a_deploy_replaces_the_containers(sengu: Sengu, podman: Podman) -> None:
    instance = start(sengu, podman, "--workers", "2")
    wait_up(instance)
    names = [container(instance, slot) for slot in (0, 1)]
    assert podman.names("running") == names
    since = len(instance.lines)
    assert instance.cli("reload").returncode == 0
    instance.wait_for_line("generation 1 is gone")
    wait_up(instance, since)
    names = [container(instance, slot) for slot in (0, 1)]
    assert names[0].startswith("sengu-web-g2-s0-")
    assert podman.names() == names
    assert sum("got TERM" in line for line in instance.lines) == 2
    label = '{{index .Config.Labels "sengu.generation"}}'
    assert podman("container", "inspect", "--format", label, names[1]) == "2\n"
    assert instance.stop() == 0
    assert podman.names() == []
    assert sum("got TERM" in line for line in instance.lines) == 4


def test_a_container_is_followed_and_not_its_client(sengu: Sengu, podman: Podman) -> None:
    instance = start(sengu, podman)
    os.kill(client_of(runner(instance)), signal.SIGKILL)
    instance.wait_for_line("lost the client of sengu-web-g1-s0-.*, which lives")
    assert instance.cli("stop").returncode == 0
    assert instance.wait() == 0
    assert not any("unexpectedly" in line for line in instance.lines)
    assert podman.names() == []


def test_a_container_serves_on_until_another_has_taken_its_killed_runners_place(
    sengu: Sengu, podman: Podman
) -> None:
    # The other one needs that long, in which we have to look.
    instance = start(sengu, podman, "--interval", "5")
    before, since = container(instance), len(instance.lines)
    os.kill(runner(instance), signal.SIGKILL)
    instance.wait_for_line(r"started as pid \d+ \(after signal KILL\)", after=since)
    assert before in podman.names("running")
    instance.wait_for_line("is ready", after=since)
    instance.wait_for_line(f"removed containers whose runner was killed: {before}$")
    assert podman.names("running") == [container(instance)]


def test_an_immediate_stop_leaves_no_container(sengu: Sengu, podman: Podman) -> None:
    instance = start(sengu, podman, "--workers", "2", script=DEAF)
    assert instance.cli("stop", "--now").returncode == 0
    assert instance.wait() == 0
    assert podman.names() == []


def test_one_that_does_not_stop_is_gone_when_its_grace_is_over(
    sengu: Sengu, podman: Podman
) -> None:
    instance = start(sengu, podman, "--grace", "4", script=DEAF)
    assert instance.cli("stop").returncode == 0
    assert instance.wait() == 0
    # Where the engine needs more than two seconds to kill it, its runner is killed as well.
    instance.wait_for_line("exited with (exit status 137|signal KILL)")
    assert podman.names() == []


def test_a_container_outlives_the_server_and_is_adopted(sengu: Sengu, podman: Podman) -> None:
    instance = start(sengu, podman)
    before = container(instance)
    os.kill(instance.server_pid, signal.SIGKILL)
    instance.wait_for_line("has taken over")
    assert container(instance) == before
    assert podman.names("running") == [before]
    assert instance.stop() == 0
    assert podman.names() == []


def test_a_runner_that_is_killed_with_the_server_leaves_no_container(
    sengu: Sengu, podman: Podman
) -> None:
    instance = start(sengu, podman)
    before, server = container(instance), instance.server_pid
    os.kill(server, signal.SIGSTOP)
    os.kill(runner_of(before), signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    instance.wait_for_line(f"removed containers whose runner was killed: {before}$")
    wait_until(lambda: podman.names("running") == [container(instance)])
    assert instance.stop() == 0
    assert podman.names() == []


def test_containers_end_with_a_main_process_that_is_killed(sengu: Sengu, podman: Podman) -> None:
    instance = start(sengu, podman)
    pid = runner(instance)
    instance.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the runner ends")
    assert podman.names() == []


def test_what_all_of_them_have_left_is_removed_by_the_next_start(
    sengu: Sengu, podman: Podman
) -> None:
    instance = start(sengu, podman)
    before = container(instance)
    processes = (instance.pid, instance.server_pid, runner_of(before))
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    instance.wait()
    assert podman.names("running") == [before]
    following = start(sengu, podman)
    following.wait_for_line(f"removed containers whose runner was killed: {before}$")
    assert podman.names() == [container(following)]


def test_an_image_that_is_gone_fails_the_deploy_and_the_old_container_serves_on(
    sengu: Sengu, podman: Podman
) -> None:
    instance = start(sengu, podman, "--attempts", "1")
    podman("untag", "web")
    failed = instance.cli("reload")
    assert failed.returncode == 1
    assert "exit status 125" in failed.stderr
    assert "  | Error: web: image not known" in failed.stderr
    assert podman.names("running") == [container(instance)]
    assert instance.status()["generation"] == 1


def test_an_image_that_cannot_be_pulled_fails_the_start(sengu: Sengu, podman: Podman) -> None:
    instance = sengu.start(
        *("--container", "localhost:1/nothing", "--engine", shlex.join(podman.engine), "--pull"),
        *("--attempts", "1"),
        name="web",
    )
    assert instance.wait() == 1
    assert "localhost:1" in str(instance.output)


def test_a_script_that_becomes_the_engines_client_is_an_ordinary_command(
    sengu: Sengu, podman: Podman, free_path: Path
) -> None:
    archive = free_path / "web.tar"
    podman("save", "--output", str(archive), "web")
    environment = {
        "ENGINE": shlex.join(podman.engine),
        "IMAGE": "web",
        "OPTIONS": shlex.join(podman.limits),
        "PULL_FROM": f"docker-archive:{archive}",
    }
    instance = sengu.start(
        *("--interval", "1", "--", f"{EXAMPLES}/run_container.sh", "/bin/sh", "-c", SERVE),
        env=environment,
    )
    instance.wait_ready()
    instance.wait_for_line("^up")
    (before,) = podman.names("running")
    since = len(instance.lines)
    assert instance.cli("reload").returncode == 0
    instance.wait_for_line("^got TERM", after=since)
    instance.wait_for_line("generation 1 is gone")
    instance.wait_for_line("^up", after=since)
    (after,) = podman.names("running")
    assert after != before
    assert instance.stop() == 0
    wait_until(lambda: podman.names() == [], "the engine removes it")


def test_containers_that_bind_a_port_themselves_lose_nobody(
    sengu: Sengu, podman: Podman, free_path: Path, port: int
) -> None:
    shutil.copy(build("self_bound", "-static"), free_path / "root/bin/server")
    podman.make_image(free_path / "root", [])
    instance = sengu.start(
        *("--self-bound", str(port), "--container", "web", "--workers", "2", "--interval", "0.2"),
        *("--engine", shlex.join(podman.engine)),
        *(f"--engine-option={shlex.join(podman.limits)}", "--", "/bin/server", str(port)),
        name="web",
    )
    instance.wait_ready()
    wait_until(lambda: not is_sweeping(instance), "the first sweep is over")
    with Load(("127.0.0.1", port), clients=8) as load:
        for generation in (2, 3):
            assert instance.cli("reload").returncode == 0
            load.wait_for(f"{generation} 0")
            load.wait_for(f"{generation} 1")
        instance.wait_for_line("generation 2 is gone")
        assert load.failures == []
        killed = container(instance)
        os.kill(runner_of(killed), signal.SIGKILL)
        instance.wait_for_line(f"removed containers whose runner was killed: {killed}$")
        load.wait_for("3 0")
    assert len(load.failures) <= 1, "more than whom the killed one had in hand"
    assert len(podman.names()) == 2


def test_the_example_is_replaced_without_a_gap(sengu: Sengu, port: int) -> None:
    instance = sengu.start(
        *("--self-bound", str(port), "--interval", "0.2", "--", sys.executable),
        str(EXAMPLES / "bound.py"),
        env={"PORT": str(port)},
    )
    instance.wait_ready()
    with Load(("127.0.0.1", port), ask_http_1_0) as load:
        load.wait_for("hello from generation 1\n")
        assert instance.cli("reload").returncode == 0
        load.wait_for("hello from generation 2\n")
        instance.wait_for_line("generation 1 is gone")
    assert load.failures == []


# What takes a daemon, or a registry.


def ask_http_1_0(address: Address) -> str:
    """The body of a 200 of Python's own server."""
    head, _, body = ask(address, HTTP_REQUEST).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.0 200 "):
        raise ConnectionError(f"an answer that is none: {head[:200]!r}")
    return body.decode()


def start_docker(sengu: Sengu, docker: Docker, *options: str) -> Instance:
    """Without cgroups, as a daemon's containers are not in those of its client."""
    instance = sengu.start(
        *("--container", "web", "--engine", docker.program, "--interval", "0.5"),
        *("--attempts", "1", "--cgroups", "off", *options, "--", "/bin/sh", "-c", SERVE),
        name="web",
    )
    instance.wait_ready()
    instance.wait_for_line("^up")
    wait_until(lambda: not is_sweeping(instance), "the first sweep is over")
    return instance


def test_a_pull_comes_before_each_generation(sengu: Sengu, docker: Docker) -> None:
    (docker.directory / "registry/web").touch()
    instance = start_docker(sengu, docker, "--pull")
    assert instance.cli("reload").returncode == 0
    instance.wait_for_line("generation 1 is gone")
    verbs = [call[0] for call in docker.calls if call[0] in ("pull", "run")]
    assert verbs == ["pull", "run", "pull", "run"]
    (docker.directory / "registry/web").unlink()
    failed = instance.cli("reload")
    assert failed.returncode == 1
    assert "pull access denied for web" in failed.stderr
    assert docker.names == [container(instance)]


def test_a_daemon_that_does_not_run_fails_the_deploy_in_its_clients_words(
    sengu: Sengu, docker: Docker
) -> None:
    instance = start_docker(sengu, docker)
    docker.stop_daemon()
    failed = instance.cli("reload")
    assert failed.returncode == 1
    assert "Is the docker daemon running?" in failed.stderr
    assert instance.status()["generation"] == 1
    docker.start_daemon()


def test_a_container_of_a_daemon_is_followed_and_not_its_client(
    sengu: Sengu, docker: Docker
) -> None:
    instance = start_docker(sengu, docker)
    os.kill(client_of(runner(instance)), signal.SIGKILL)
    instance.wait_for_line("lost the client of sengu-web-g1-s0-.*, which lives")
    assert instance.stop() == 0
    assert not any("unexpectedly" in line for line in instance.lines)


def test_an_engine_that_does_not_answer_at_the_end_is_told(sengu: Sengu, docker: Docker) -> None:
    instance = start_docker(sengu, docker)
    pid = docker.facts(container(instance))["pid"]
    docker.stop_daemon()
    assert instance.cli("stop", "--now").returncode == 0
    assert instance.wait() == 0
    instance.wait_for_line("cannot look for containers without a runner: Cannot connect")
    assert is_alive(pid)
    docker.start_daemon()
    docker.close()
    docker.forget()
