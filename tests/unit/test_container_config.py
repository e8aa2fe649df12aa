"""What `--container` becomes, and every mistake with it that is found before a start."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sengu.config.assemble import assemble
from sengu.config.container import GIVEN
from sengu.config.launch import Launch
from sengu.config.setting import parse_values
from sengu.config.settings.start import SETTINGS
from sengu.container import command
from sengu.container.identity import Identity
from sengu.container.order import Order, read
from sengu.errors import UsageError
from sengu.model.container import Container
from sengu.model.service import ReadyByNotify
from sengu.server.containers import worker_command

ENGINES = ("podman", "docker")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the engines in `bin`."""
    (tmp_path / "bin").mkdir()
    for name in (*ENGINES, "nerdctl"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(
    options: Mapping[str, str | Sequence[str]] | None = None,
    args: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Launch:
    """Assemble for the image `web`, with options as in {"workers": "4"}."""
    given = {"container": "web", **(options or {})}
    texts = {name: [text] if isinstance(text, str) else text for name, text in given.items()}
    found = {"PATH": f"{os.getcwd()}/bin", "XDG_RUNTIME_DIR": "/run/user/1", **(environ or {})}
    return assemble(parse_values(SETTINGS, texts), args, found)


def container_of(launch: Launch) -> Container:
    container = launch.boot.service.container
    assert container is not None
    return container


def refusal(options: Mapping[str, str | Sequence[str]], **more: str) -> str:
    with pytest.raises(UsageError) as caught:
        build(options, environ=more)
    return str(caught.value)


def order_of(launch: Launch) -> Order:
    """What the runner is told, as it reads it."""
    words = worker_command(launch.boot.service)
    assert words[1:5] == ("-P", "-m", "sengu.container", "run")
    return read(Order, words[5])


def test_arguments_are_for_the_container_and_need_not_be_there() -> None:
    launch = build(args=("--bind", ":80"))
    assert container_of(launch).args == ("--bind", ":80")
    assert launch.boot.service.command == ("podman", "run", "web", "--bind", ":80")
    assert container_of(build()).args == ()


def test_podman_is_preferred_and_docker_is_what_is_left(place: Path) -> None:
    assert container_of(build()).engine == ("podman",)
    (place / "bin/podman").unlink()
    assert container_of(build()).engine == ("docker",)
    (place / "bin/docker").unlink()
    assert "needs podman or docker, and neither was found in PATH" in refusal({})


def test_an_engine_has_options_of_its_own(place: Path) -> None:
    engine = f"{place}/bin/podman --storage-driver vfs --root '/a b'"
    expected = (f"{place}/bin/podman", "--storage-driver", "vfs", "--root", "/a b")
    assert container_of(build({"engine": engine})).engine == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "nerdctl"}, "is no engine that is known; write podman or docker"),
        ({"engine": "/nowhere/podman"}, "--engine: program '/nowhere/podman' does not exist"),
        ({"engine": "podman 'x"}, "close the quotes"),
        ({"engine": " "}, "--engine is empty"),
        ({"container": "-v"}, "--container '-v' is no image"),
        ({"container": "a b"}, "--container 'a b' is no image"),
        ({"port": "8080"}, "--port with --container: a listener cannot be handed"),
        ({"path": "/tmp/web.sock"}, "--path with --container: a listener cannot be handed"),
        ({"ready": "notify"}, "use --ready delay:SECONDS"),
        ({"ready": "tcp"}, "use --self-bound PORT, which waits until it listens there"),
        ({"watchdog": "5"}, "--watchdog need a NOTIFY_SOCKET"),
        ({"engine-option": "memory=1g"}, "is no option; write it as the engine has it"),
        ({"engine-option": "--name=x"}, "is not for you to set: its name tells"),
        ({"engine-option": "-d"}, "the container would not be followed; leave it out"),
        ({"env": "A B=1"}, "--env 'A B' is no variable's name"),
        ({"env": "A*"}, "--env 'A*' is no variable's name"),
        ({"env": "=1"}, "--env '' is no variable's name"),
        ({"env": "A=1\n2"}, "--env A: its value has a line break"),
        ({"env": "MISSING"}, "--env MISSING is not set; set it, or give it here"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(options: Mapping[str, str], words: str) -> None:
    assert words in refusal(options)


@pytest.mark.parametrize("option", ["pull", "engine", "engine-option", "env"])
def test_options_of_containers_need_one(option: str) -> None:
    text = "1" if option == "pull" else "podman"
    with pytest.raises(UsageError, match=f"--{option} is for containers; add --container IMAGE"):
        assemble(parse_values(SETTINGS, {option: [text]}), ("true",), {"PATH": "/usr/bin:/bin"})


def test_a_pull_comes_before_the_steps_of_the_user(place: Path) -> None:
    (place / "bin/migrate").write_text("#!/bin/sh\n")
    (place / "bin/migrate").chmod(0o755)
    options = {"pull": "1", "engine": "podman --log-level=warn", "pre-deploy": ["migrate now"]}
    steps = build(options).boot.service.pre_deploy
    assert steps == (("podman", "--log-level=warn", "pull", "web"), ("migrate", "now"))
    assert build().boot.service.pre_deploy == ()


def test_a_given_value_is_in_no_document_and_in_nobodys_arguments() -> None:
    launch = build({"env": ["A=sec ret", "PATH=/sec ret", "HOME"]}, environ={"HOME": "/root"})
    assert json.loads(launch.environment[GIVEN]) == {"A": "sec ret", "PATH": "/sec ret"}
    assert launch.environment["PATH"] == f"{os.getcwd()}/bin"
    assert container_of(launch).names == ("A", "PATH", "HOME")
    assert "sec ret" not in str(launch.boot)
    assert "sec ret" not in str(worker_command(launch.boot.service))


def test_the_runner_reads_what_the_server_writes(place: Path) -> None:
    options = {
        "engine-option": ["--memory=1g", "--volume '/a b:/c'"],
        "env": ["A=1"],
        "envdir": str(place),
        "grace": "7",
        "signal-on-term": "QUIT",
    }
    assert order_of(build(options, args=("x y",))) == Order(
        engine=["podman"],
        image="web",
        args=["x y"],
        options=["--memory=1g", "--volume", "/a b:/c"],
        names=["A"],
        env_dir=str(place),
        stop_signals=[signal.SIGQUIT, signal.SIGTERM],
        grace_seconds=7.0,
        ready_seconds=1.0,
    )
    assert command.GIVEN == GIVEN


def test_a_delay_is_waited_for_by_who_knows_since_when_it_runs() -> None:
    launch = build({"ready": "delay:3"})
    assert order_of(launch).ready_seconds == 3.0
    assert launch.boot.service.boot.readiness == ReadyByNotify()
    assert launch.boot.service.boot.timeout_seconds == 63.0


IDENTITY = Identity("my/web", "3", "1", "4026531836/77/1234")


def run_words(launch: Launch) -> list[str]:
    return command.run_words(order_of(launch), IDENTITY, ("A",), "/file")


def test_the_command_line_names_service_generation_and_slot() -> None:
    assert run_words(build({"grace": "2.5"}, args=("serve",))) == [
        *("run", "--pull=never", "--sig-proxy=false", "--name", "sengu-my-web-g3-s1-77"),
        *("--label", "sengu.service=my/web"),
        *("--label", "sengu.generation=3"),
        *("--label", "sengu.slot=1"),
        *("--label", "sengu.runner=4026531836/77/1234"),
        *("--env", "A", "--env-file", "/file"),
        *("--stop-signal", "15", "--stop-timeout", "3"),
        *("--net=host", "web", "serve"),
    ]


def test_another_network_takes_the_place_of_the_hosts() -> None:
    words = run_words(build({"engine-option": "--network bridge"}))
    assert words[-3:] == ["--network", "bridge", "web"]
    assert "--net=host" not in words


def test_only_variables_that_are_set_are_passed_and_each_once() -> None:
    order = order_of(build({"env": ["A=1", "HOME"]}, environ={"HOME": "/"}))
    environ = {"SENGU_SLOT": "0", "HOME": "/", "FROM_DIR": "x", "A": "2"}
    names = command.passed_names(order, ["FROM_DIR", "GONE", "HOME"], environ)
    assert names == ["SENGU_SLOT", "FROM_DIR", "HOME", "A"]


def test_the_client_does_not_take_our_sockets_for_its_own() -> None:
    ours = {"NOTIFY_SOCKET": "@x", "LISTEN_FDS": "1", GIVEN: "{}", "SENGU_LIFELINE_FD": "3"}
    assert command.client_environment({**ours, "HOME": "/"}) == {"HOME": "/"}
