"""`sengu start --self-bound` when things go wrong: deploys that fail change nothing, and a server
that is killed is followed by one that goes on. Nobody who is served notices."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.peers import deploy
from tests.system.puppets import (
    kill,
    of_type,
    wait_until,
    workers,
)
from tests.system.self_bound import (
    ADDRESS,
    PORT,
    Ab,
    Prefork,
    isolated,
    launch,
    passage,
    sockets,
    start,
    visitors,
    wait_for_rest,
)

FAILED = 1
# Quick enough: within the interval one must die, within the other time they must bind.
QUICK_TO_FAIL = ("--attempts", "1", "--interval", "1.5", "--ready-timeout", "4")


@pytest.fixture
def program(free_path: Path) -> Prefork:
    return Prefork(free_path)


NOWHERE = "nor anywhere else that can be seen"
NOT_JOINING = {
    "bind 127.0.0.1 9999": f"it does not listen on {ADDRESS}, but on 127.0.0.1:9999",
    f"bind 127.0.0.2 {PORT}": f"it does not listen on {ADDRESS}, but on 127.0.0.2:{PORT}",
    f"bind 0.0.0.0 {PORT}": f"it does not listen on {ADDRESS}, but on 0.0.0.0:{PORT}",
    "late 60000": f"it does not listen on {ADDRESS}, {NOWHERE}",
    "user 65534": f"cannot bind 127.0.0.1 port {PORT}: Address already in use",
    "die 50": "exit status 1",
}


@isolated
def test_program_that_does_not_join_is_given_up(sengu: Sengu, program: Prefork) -> None:
    program.write("sockets 2")
    instance = start(sengu, program, "auto", *QUICK_TO_FAIL)
    with visitors(2) as load:
        for line, reason in NOT_JOINING.items():
            program.write("sockets 2", line)
            done = instance.cli("reload")
            assert done.returncode == FAILED
            assert reason in done.stdout + done.stderr
        assert set(load.answers) == {"1"}
        program.write("sockets 3")
        assert instance.cli("reload").returncode == 0
        last = len(NOT_JOINING) + 2
        load.wait_for(str(last))
    assert load.failures == []
    assert set(load.answers) == {"1", str(last)}
    wait_for_rest(instance, 3)


@pytest.mark.parametrize("technique", ["bpf", "dup", "member"])
@isolated
def test_candidate_that_dies_after_it_has_joined_takes_nobody_with_it(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    """Before it is ready it gets nobody."""
    program.write("sockets 2")
    instance = start(sengu, program, technique, "--attempts", "2", "--interval", "3")
    with Ab():
        program.write("sockets 3", "die 150")
        done = instance.cli("reload")
        assert done.returncode == FAILED
        assert "exit status 1" in done.stdout + done.stderr
        wait_for_rest(instance, 2)
    assert {worker["generation"] for worker in workers(instance)} == {1}


@isolated
def test_program_that_binds_elsewhere_from_the_start_ends_the_service(
    sengu: Sengu, program: Prefork
) -> None:
    program.write("bind 127.0.0.1 9999")
    instance = launch(sengu, program, "auto", *QUICK_TO_FAIL)
    instance.wait_for_line(f"it does not listen on {ADDRESS}, but on 127.0.0.1:9999")
    assert instance.wait() == 1


Stage = Callable[[Instance, int], object]
STAGES: dict[str, Stage] = {
    "it starts": lambda instance, since: instance.wait_event(
        of_type("worker_started"), since=since
    ),
    "it joins": lambda instance, since: wait_until(lambda: sockets() > 2 + 2),
    "the old one is drained": lambda instance, since: instance.wait_event(
        of_type("worker_draining"), since=since
    ),
    "the old one stops": lambda instance, since: instance.wait_event(
        of_type("worker_stopping"), since=since
    ),
}


@pytest.mark.parametrize("technique", ["bpf", "dup", "member"])
@isolated
def test_servers_killed_at_each_stage_of_deploys_lose_nobody(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    """Not just when sockets of ours are taken out, which takes a few milliseconds."""
    program.write("sockets 2", "late 50", "slow 20")
    instance = start(sengu, program, technique)
    with visitors(20) as load:
        for generation, (stage, is_reached) in enumerate(STAGES.items(), 2):
            last = instance.status()["last_event"]
            count = 2 + generation % 2 * 4  # so many that who joins is seen also when it is late
            program.write(f"sockets {count}", "late 50", "slow 20")
            instance.signal(signal.SIGHUP)
            is_reached(instance, last)
            kill(instance.server_pid)
            load.wait_for(str(generation))
            wait_for_rest(instance, count)
            assert load.failures == [], f"killed when {stage}"
    assert load.failures == []
    assert passage(instance)["technique"] == technique


@pytest.mark.parametrize("technique", ["bpf", "dup"])
@isolated
def test_servers_killed_while_workers_are_scaled_lose_nobody(
    sengu: Sengu, program: Prefork, technique: str
) -> None:
    program.write("sockets 1", "slow 20")
    instance = start(sengu, program, technique, "--workers", "4")
    with visitors(20) as load:
        for count in (2, 4):
            assert instance.control("POST", "/v1/scale", {"workers": count}).status == 202
            kill(instance.server_pid)
            wait_for_rest(instance, count)
        load.wait_for("1")
    assert load.failures == []


@isolated
def test_server_killed_at_rest_goes_on_with_the_technique(sengu: Sengu, program: Prefork) -> None:
    program.write("sockets 2")
    instance = start(sengu, program, "auto")
    kill(instance.server_pid)
    instance.wait_event(of_type("server_adopted"))
    wait_until(lambda: passage(instance)["technique"] == "bpf")
    with Ab(20):
        deploy(instance)
        wait_for_rest(instance, 2)
