"""Several generations at a time: each deploy is obeyed at once, and in the end one serves."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.puppets import (
    Clients,
    Gate,
    Pending,
    Script,
    descriptors,
    household,
    is_alive,
    kill,
    last_event,
    of_type,
    pids,
    start,
    wait_until,
    workers,
)


def test_several_generations_drain_at_once_and_a_deploy_waits_for_none(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "1")
    slow = []
    busy: list[int] = []
    for generation in range(1, 5):
        slow.append(Pending(port, 100))
        busy += pids(instance, generation)
        kill(busy[-1], signal.SIGSTOP)  # it needs as long as we do
        instance.signal(signal.SIGHUP)
        instance.wait_event(of_type("deploy_concluded", generation=generation + 1))
    states = [(w["generation"], w["state"]) for w in workers(instance)]
    assert states == [
        (1, "stopping"),
        (2, "stopping"),
        (3, "stopping"),
        (4, "stopping"),
        (5, "ready"),
    ]
    for pid in busy:
        kill(pid, signal.SIGCONT)
    assert [request.answer().generation for request in slow] == [1, 2, 3, 4]
    wait_until(lambda: [w["generation"] for w in workers(instance)] == [5])
    for generation in range(1, 5):
        instance.wait_event(of_type("generation_retired", generation=generation))


@pytest.mark.parametrize("each_heard", [False, True])
def test_a_storm_of_hups_ends_with_one_generation_and_nothing_leaks(
    sengu: Sengu, port: int, script: Script, each_heard: bool
) -> None:
    """A hundred at once, of which some are heard as one, or so that each becomes a deploy."""
    instance = start(sengu, port, script, "--workers", "3")
    lasting = instance.pid, instance.server_pid
    before = [kinds(pid) for pid in lasting]
    with Clients(port) as clients:
        for _ in range(100):
            since = last_event(instance) if each_heard else 0
            instance.signal(signal.SIGHUP)
            if each_heard:
                instance.wait_event(of_type("deploy_requested"), since=since)
        clients.wait_for_answers()
        for number in (signal.SIGTTIN, signal.SIGTTOU):  # delivered and told after each HUP
            instance.signal(number)
        instance.wait_event(of_type("scale_adjusted", delta=-1))
        wait_until(lambda: is_calm(instance))
        last = instance.status()["generation"]
        assert {answer.generation for answer in clients.wait_for_answers()} == {last}
    assert last == 101 if each_heard else 2 <= last <= 101
    found = workers(instance)
    assert [(w["generation"], w["slot"], w["state"]) for w in found] == [
        (last, slot, "ready") for slot in range(3)
    ]
    assert household(instance) == {w["pid"] for w in found}
    # Before, a client whom we have been may still have been served.
    wait_until(lambda: not any(kinds(pid) - was for pid, was in zip(lasting, before, strict=True)))


def is_calm(instance: Instance) -> bool:
    status = instance.status()
    return status["state"] == "serving" and len(status["workers"]) == 3


def kinds(pid: int) -> Counter[str]:
    """How many descriptors of each kind a process has."""
    return Counter(target.partition("[")[0] for target in descriptors(pid))


def test_a_hup_while_a_generation_starts_supersedes_it(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    gate = Gate(free_path)
    script.write(gate.line)
    with Clients(port) as clients:
        instance.signal(signal.SIGHUP)
        gate.wait_for_somebody()
        abandoned = pids(instance, 2)
        script.write()
        instance.signal(signal.SIGHUP)
        outcome = instance.wait_event(of_type("deploy_concluded", generation=2))
        assert outcome["outcome"] == "superseded"
        assert "generation 3 was asked for meanwhile" in outcome["text"]
        outcome = instance.wait_event(of_type("deploy_concluded", generation=3))
        assert outcome["outcome"] == "succeeded"
        instance.wait_event(of_type("generation_retired", generation=1))
        assert {answer.generation for answer in clients.wait_for_answers()} == {3}
        assert 2 not in {answer.generation for answer in clients.answers}
    wait_until(lambda: not any(is_alive(pid) for pid in abandoned))
    wait_until(lambda: {w["generation"] for w in workers(instance)} == {3})


def test_a_hup_while_the_very_first_generation_starts_supersedes_it(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    gate = Gate(free_path)
    script.write(gate.line)
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", "--workers", "2", *script.command)
    )
    gate.wait_for_somebody()
    script.write()
    instance.signal(signal.SIGHUP)
    instance.wait_ready()
    wait_until(lambda: [w["generation"] for w in workers(instance)] == [2, 2])


def test_old_workers_serve_beside_the_new_ones_for_the_delay(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "1", "--kill-old-delay", "5")
    with Clients(port) as clients:
        instance.signal(signal.SIGHUP)
        concluded = instance.wait_event(of_type("deploy_concluded", generation=2))
        assert [(w["generation"], w["state"]) for w in workers(instance)] == [
            (1, "ready"),
            (2, "ready"),
        ]
        stopping = instance.wait_event(of_type("worker_stopping"))
        assert 5 <= stopping["time"] - concluded["time"] < 15
        instance.wait_event(of_type("generation_retired", generation=1))
        assert {answer.generation for answer in clients.wait_for_answers()} == {2}


def test_a_scale_during_a_deploy_counts_for_the_new_generation(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(sengu, port, script, "--workers", "2")
    gate = Gate(free_path)
    script.write(gate.line)
    instance.signal(signal.SIGHUP)
    gate.wait_for_somebody()
    script.write()
    assert instance.control("POST", "/v1/scale", {"workers": 4}).status == 202
    gate.open()
    instance.wait_event(of_type("deploy_concluded", generation=2))
    wait_until(
        lambda: [(w["generation"], w["state"]) for w in workers(instance)] == [(2, "ready")] * 4
    )
