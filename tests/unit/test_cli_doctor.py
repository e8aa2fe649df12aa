"""`sengu doctor` on the command line, on machines that are written down."""

import json
import re

import pytest
from click.shell_completion import ShellComplete

from sengu.cli.main import run, sengu
from sengu.doctor import here
from sengu.doctor.machine import Refusal, Trial
from tests.unit.support_machine import FakeMachine

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """The one that the verb looks at."""
    made = FakeMachine()
    monkeypatch.setattr(here, "Here", lambda: made)
    return made


def test_a_table_then_the_verdict_then_the_technique(machine: FakeMachine, capfd: Capture) -> None:
    assert run(["doctor"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert re.split(r"  +", lines[0]) == ["CHECK", "STATE", "NEEDED", "FOUND", "WHAT TO DO"]
    assert re.split(r"  +", lines[1]) == ["kernel", "works", "yes", "Linux 6.1.0-44-amd64"]
    assert lines[-2] == "nothing is missing for serve, work, start"
    assert lines[-1].startswith("self-bound programs: bpf, ")
    assert err == ""


def test_something_needed_that_is_missing_fails(machine: FakeMachine, capfd: Capture) -> None:
    machine.commands.clear()
    assert run(["doctor", "--for", "container", "--for", "serve"]) == 1
    out, _ = capfd.readouterr()
    assert re.search(r"^podman +does not +or docker +not installed +apt-get", out, re.M)
    assert out.splitlines()[-2] == "missing for container, serve: podman or docker"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--engine", "docker"], "serve, work, start, container"),
        (["--for", "work", "--engine", "docker"], "work, container"),
        (["--for", "container", "--engine", "docker"], "container"),
    ],
)
def test_an_engine_that_was_named_is_the_one_that_has_to_work(
    machine: FakeMachine, capfd: Capture, words: list[str], asked: str
) -> None:
    assert run(["doctor", *words]) == 0
    del machine.commands["docker"]
    assert run(["doctor", *words]) == 1
    out, _ = capfd.readouterr()
    assert re.search(r"^podman +works +- +podman", out, re.M)
    assert re.search(r"^docker +does not +yes +not installed", out, re.M)
    assert out.splitlines()[-2] == f"missing for {asked}: docker"


def test_what_is_not_needed_may_be_missing(machine: FakeMachine, capfd: Capture) -> None:
    machine.commands.clear()
    assert run(["doctor"]) == 0
    out, _ = capfd.readouterr()
    assert re.search(r"^podman +does not +- +not installed", out, re.M)


def test_a_backlog_that_the_kernel_cuts_fails(machine: FakeMachine, capfd: Capture) -> None:
    assert run(["doctor", "--backlog", "9999"]) == 1
    assert "missing for serve, work, start: somaxconn" in capfd.readouterr().out


def test_json_is_one_object_with_the_same_exit_code(machine: FakeMachine, capfd: Capture) -> None:
    machine.refused[Trial.STEERING] = Refusal(92, "Protocol not available (ENOPROTOOPT)")
    assert run(["doctor", "--json", "--for", "reuseport"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert report["missing"] == [["steering"]]
    assert report["self_bound"] == "none"
    (steering,) = [row for row in report["checks"] if row["name"] == "steering"]
    assert steering["state"] == "does not"
    assert steering["fact"] == "Protocol not available (ENOPROTOOPT)"


def test_what_others_have_said_cannot_command_the_terminal(
    machine: FakeMachine, capfd: Capture
) -> None:
    machine.no_cgroups = "our cgroup /sys/\x1b[2J is odd"
    assert run(["doctor"]) == 0
    out, _ = capfd.readouterr()
    assert "\x1b" not in out
    assert r"/sys/\x1b[2J is odd" in out


@pytest.mark.parametrize(
    "words", [["--for", "peace"], ["--engine", "rkt"], ["--backlog", "0"], ["web"]]
)
def test_bad_input_is_refused_before_anything_is_tried(
    machine: FakeMachine, capfd: Capture, words: list[str]
) -> None:
    assert run(["doctor", *words]) == 2
    assert machine.tried == []
    _, err = capfd.readouterr()
    assert "see sengu doctor --help" in err


def test_a_terminal_gets_no_line_that_is_too_long(
    machine: FakeMachine, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sengu.cli import wide

    machine.no_cgroups = "a reason in very many words, " * 10
    monkeypatch.setenv("COLUMNS", "90")
    wide.print_table(
        ("CHECK", "STATE", "NEEDED", "FOUND", "WHAT TO DO"),
        [("tcp_migrate_req", "does not", "-", machine.no_cgroups, "turn it on, " * 20)],
    )
    out, _ = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 90
    assert sum("tcp_migrate_req  does not" in line for line in lines) == 1


def test_shells_complete_what_it_is_for() -> None:
    complete = ShellComplete(sengu, {}, "sengu", "_SENGU_COMPLETE")
    found = [item.value for item in complete.get_completions(["doctor", "--for"], "se")]
    assert found == ["serve", "self-bound"]
