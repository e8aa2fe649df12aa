"""`sengu start --self-bound`: programs that bind their port by themselves are deployed and scaled
under load, and nobody notices; with each technique."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.peers import deploy
from tests.system.puppets import children, kill, of_type, pids, wait_until
from tests.system.self_bound import (
    ADDRESS,
    PORT,
    TECHNIQUES,
    Ab,
    Prefork,
    isolated,
    passage,
    sockets,
    start,
    visitors,
    wait_for_rest,
)
from tests.system.test_reuseport import scale
from tests.system.unprivileged import as_nobody
from tests.system.web import Site, status_of

COUNTS = (3, 2, 4, 2)


class Telling(Prefork):
    """It says when all its sockets are there. Else those that come late, as on a busy machine, are
    not known when the next deploy begins, and most techniques cannot steer past them."""

    def write(self, *lines: str) -> None:
        super().write("notify", "late 100", *lines)

    @property
    def command(self) -> tuple[str, ...]:
        return "--ready", "notify", *super().command


@pytest.fixture
def program(free_path: Path) -> Telling:
    return Telling(free_path)


@pytest.fixture
def silent(free_path: Path) -> Prefork:
    return Prefork(free_path)


def deploys_in_a_row(instance: Instance, program: Prefork, *lines: str) -> None:
    """Each begins while those of before are about to go."""
    for count in COUNTS:
        program.write(f"sockets {count}", *lines)
        deploy(instance)


@pytest.mark.parametrize("technique", [*TECHNIQUES, "auto"])
@isolated
def test_ab_sees_no_deploy(sengu: Sengu, program: Prefork, technique: str) -> None:
    program.write("sockets 3")
    instance = start(sengu, program, technique)
    with Ab():
        deploys_in_a_row(instance, program)
        wait_for_rest(instance, COUNTS[-1])
        deploy(instance)
    wait_for_rest(instance, COUNTS[-1])
    found = technique if technique != "auto" else "bpf"
    told = {"address": ADDRESS, "technique": found, "sockets": COUNTS[-1], "remark": ""}
    assert passage(instance) == told
    said = instance.cli("status").stdout
    assert f"self-bound {ADDRESS}, {COUNTS[-1]} sockets, steered by {found}\n" in said
    instance.wait_for_line(f"{ADDRESS}: steered by {found}$")
    assert not [line for line in instance.lines if "cannot see" in line]


@pytest.mark.parametrize("technique", TECHNIQUES)
@isolated
def test_program_that_breaks_off_what_it_has_in_hand_has_nothing_in_hand_then(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    program.write("sockets 2", "rude", "slow 30")
    instance = start(sengu, program, technique)
    with visitors() as load:
        for generation in (2, 3, 4):
            deploy(instance)
            load.wait_for(str(generation))
    assert load.failures == []


@isolated
def test_slow_requests_are_waited_for(sengu: Sengu, silent: Prefork) -> None:
    silent.write("sockets 2", "rude", "slow 300")
    instance = start(sengu, silent, "auto")
    with visitors(20) as load:
        for generation in (2, 3):
            deploy(instance)
            load.wait_for(str(generation))
    assert load.failures == []


@pytest.mark.parametrize("technique", TECHNIQUES)
@isolated
def test_deploy_while_clients_of_before_are_waited_for(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    """Not for as long as --drain lets those wait who are in each other's way."""
    program.write("sockets 2", "rude", "slow 1500")
    instance = start(sengu, program, technique, "--drain", "60")
    with visitors() as load:
        deploy(instance)
        deploy(instance)
        load.wait_for("3")
        instance.wait_event(of_type("generation_retired", generation=2))
    assert load.failures == []


@isolated
def test_without_a_technique_people_are_told_what_it_costs(sengu: Sengu, silent: Prefork) -> None:
    silent.write("sockets 2")
    instance = start(sengu, silent, "none")
    remark = "connections that wait when an old worker closes its sockets are lost"
    instance.wait_for_line(f"warning: {ADDRESS}: {remark}")
    assert passage(instance)["technique"] == "none"
    assert passage(instance)["remark"].startswith(remark)
    assert remark in instance.cli("status").stdout
    deploy(instance)
    wait_for_rest(instance, 2)


@pytest.mark.parametrize("technique", ["auto", "dup", "member"])
@isolated
def test_nobody_with_no_capabilities_deploys_as_well(
    sengu: Sengu, program: Prefork, free_path: Path, technique: str
) -> None:
    program.write("sockets 3")
    instance = start(sengu, program, technique, prefix=as_nobody(free_path))
    with Ab():
        deploys_in_a_row(instance, program)
    wait_for_rest(instance, COUNTS[-1])
    assert passage(instance)["technique"] == (technique if technique != "auto" else "dup")


@isolated
def test_nobody_steers_a_program_that_lets_nobody_look_in_by_sockets_beside_it(
    sengu: Sengu, program: Prefork, free_path: Path
) -> None:
    program.write("sockets 3", "hidden")
    instance = start(sengu, program, "auto", prefix=as_nobody(free_path))
    with Ab():
        deploys_in_a_row(instance, program, "hidden")
    wait_for_rest(instance, COUNTS[-1])
    assert passage(instance)["technique"] == "member"


@pytest.mark.parametrize("technique", ["auto", "dup", "member"])
@isolated
def test_program_of_another_user_is_steered_by_root(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    program.write("sockets 2", "user 65534")
    instance = start(sengu, program, technique)
    with Ab(20):
        deploy(instance)
        wait_for_rest(instance, 2)
    assert passage(instance)["technique"] == (technique if technique != "auto" else "bpf")


@pytest.mark.parametrize("technique", ["bpf", "dup"])
@isolated
def test_workers_are_scaled(sengu: Sengu, program: Prefork, technique: str) -> None:
    program.write("sockets 2")
    instance = start(sengu, program, technique, "--workers", "2")
    with Ab():
        for count in (4, 2, 3):
            scale(instance, count)
            wait_for_rest(instance, 2 * count)
        deploy(instance)
    wait_for_rest(instance, 6)


@isolated
def test_some_of_those_who_began_together_cannot_be_steered_past_by_members(
    sengu: Sengu, program: Prefork
) -> None:
    """Nobody knows their places. It is told, and the rest go on."""
    program.write("sockets 2")
    instance = start(sengu, program, "member", "--workers", "2")
    for count in (4, 2, 3):
        scale(instance, count)
        wait_for_rest(instance, 2 * count)
    instance.wait_for_line("has drained: it cannot be steered past$")
    with Ab():
        deploy(instance)
        wait_for_rest(instance, 6)


@isolated
def test_ready_is_who_says_so_when_that_is_asked_for(sengu: Sengu, silent: Prefork) -> None:
    silent.write("sockets 2", "notify")
    instance = start(sengu, silent, "auto", "--ready", "notify", "--interval", "60")
    with Ab(20):
        deploy(instance)
        wait_for_rest(instance, 2)
    instance.wait_for_line(f"is ready: listens on {ADDRESS} with 2 sockets")


@pytest.mark.parametrize("technique", ["auto", "member"])
@isolated
def test_address_that_takes_both_ipv4_and_ipv6_is_steered_too(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    program.write(f"bind :: {PORT}", "sockets 2")
    instance = sengu.start(
        *("--self-bound", f"[::]:{PORT}", "--technique", technique, "--interval", "0.1"),
        *program.command,
    ).wait_ready()
    with visitors() as load:  # by IPv4
        for generation in (2, 3):
            deploy(instance)
            load.wait_for(str(generation))
        wait_for_rest(instance, 2)
    assert load.failures == []
    assert passage(instance)["address"] == f"[::]:{PORT}"


def replace_one(leader: int) -> None:
    """Until one of the program's processes is another."""
    # It blocks TERM from its start on, and nothing while it waits for signals, USR1 among them.
    wait_until(lambda: int(status_of(leader)["SigBlk"], 16) == 0)
    before = children(leader)
    kill(leader, signal.SIGUSR1)
    # The old one has ended by the time that there is a new one.
    wait_until(lambda: children(leader) - before and sockets() == 3)


@pytest.mark.parametrize("technique", ["dup", "member"])
@isolated
def test_process_that_is_replaced_by_its_own_program_confuses_no_deploy(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    program.write("sockets 3")
    instance = start(sengu, program, technique)
    for generation in (1, 2):
        (leader,) = pids(instance, generation)
        replace_one(leader)
        with Ab():
            deploy(instance)
            wait_for_rest(instance, 3)


@isolated
def test_at_rest_too_nobody_is_lost_when_a_program_replaces_a_process_of_its_own(
    sengu: Sengu, silent: Prefork
) -> None:
    silent.write("sockets 3")
    instance = start(sengu, silent, "bpf")
    (leader,) = pids(instance)
    with Ab():
        for _ in range(5):
            replace_one(leader)
    assert sockets() == 3


@pytest.mark.parametrize("technique", ["auto", "member"])
@isolated
def test_ab_sees_no_deploy_of_gunicorn(sengu: Sengu, site: Site, technique: str) -> None:
    options = ["--reuse-port", "--workers", "2", "--bind", ADDRESS, "--log-level", "warning"]
    if "--no-control-socket" in gunicorn("--help"):  # else two of them would have the same one
        options.append("--no-control-socket")
    command = (sys.executable, "-m", "gunicorn", *options, "plain:app")
    instance = sengu.start(
        *("--self-bound", ADDRESS, "--technique", technique, "--interval", "1", "--", *command),
        cwd=site.directory,
    ).wait_ready()
    with Ab(20, "/steady"):
        for _ in range(3):
            deploy(instance)
    wait_until(lambda: sockets() == 2)


def gunicorn(*args: str) -> str:
    command = [sys.executable, "-m", "gunicorn", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
