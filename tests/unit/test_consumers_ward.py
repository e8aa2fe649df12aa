"""Suspects run alone, and are taken only when nothing else runs."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sengu.consumers.message import Message
from sengu.consumers.model.judge import Delivered, Origin
from sengu.consumers.worker.gate import Gate
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.ward import Ward
from sengu.posix import clock
from tests.unit.support_consumers import spec_of


def job(origin: Origin = Origin.MAIN) -> Job:
    delivered = Delivered({}, "", "downloads", False, origin)
    return Job(spec_of(), print, Message(body=b""), delivered, lambda _job, _ending: None)


class Asked:
    """A subscription with suspects, as far as a ward needs one."""

    def __init__(self, *suspects: Job) -> None:
        self.spec = spec_of()
        self.is_subscribed = True
        self.is_asking = False
        self.moves_suspects_since: float | None = None
        self.suspects = list(suspects)

    def look_for_suspects(self, found: Callable[[Any], None]) -> None:
        if self.suspects:
            found(self)

    def ask_for_suspect(self, take: Callable[[Job, Any], None]) -> None:
        if self.suspects:
            take(self.suspects.pop(0), None)


class House:
    """A ward with its gate, and what runs."""

    def __init__(self, *asked: Asked) -> None:
        self.gate = Gate()
        self.running: list[Job] = []
        subscriptions: Any = asked
        self.ward = Ward(subscriptions, self.gate, self.start, self.running.__contains__)

    def start(self, one: Job, _runner: object = None) -> None:
        assert self.gate.try_to_enter(one)
        self.running.append(one)

    def end(self, one: Job) -> None:
        self.gate.leave(one)
        self.running.remove(one)

    def round(self) -> None:
        self.ward.look()
        self.ward.proceed()


def test_nothing_begins_before_the_worker_was_said_to_be_ready() -> None:
    house, one = House(Asked()), job()
    house.round()
    assert house.gate.try_to_enter(one) is None
    house.ward.begin()
    house.round()
    assert house.gate.try_to_enter(one)


def test_a_suspect_is_taken_when_nothing_else_runs_and_nothing_begins_beside_it() -> None:
    suspect, before, after = job(Origin.SUSPECTS), job(), job()
    asked = Asked(suspect)
    house = House(asked)
    house.ward.begin()
    house.ward.proceed()
    house.start(before)
    house.round()
    assert asked.suspects == [suspect], "it stays with the broker"
    assert house.gate.try_to_enter(after) is None
    house.end(before)
    house.round()
    assert house.running == [suspect]
    assert house.gate.try_to_enter(after) is None
    house.end(suspect)
    house.round()
    assert house.gate.try_to_enter(after)


def test_consumers_take_turns() -> None:
    suspects = [job(Origin.SUSPECTS) for _ in range(4)]
    house = House(Asked(*suspects[:2]), Asked(*suspects[2:]))
    house.ward.begin()
    order = []
    for _ in range(20):
        house.round()
        order += house.running
        for one in tuple(house.running):
            house.end(one)
    assert sorted(map(suspects.index, order[:2])) in ([0, 2], [1, 2])
    assert set(order) == set(suspects)


def test_a_suspect_that_somebody_else_has_keeps_nobody() -> None:
    asked = Asked(job(Origin.SUSPECTS))
    house, one = House(asked), job()
    house.ward.begin()
    house.ward.proceed()
    house.start(one)
    house.round()
    asked.suspects.clear()
    house.end(one)
    house.round()
    house.round()
    assert house.gate.try_to_enter(job())


def test_with_the_connection_the_wish_for_a_suspect_is_gone() -> None:
    asked = Asked(job(Origin.SUSPECTS))
    house = House(asked)
    house.ward.begin()
    house.ward.proceed()
    house.start(job())
    house.round()
    asked.is_subscribed = False
    asked.suspects.clear()
    house.round()
    assert house.gate.try_to_enter(job())


def test_jobs_that_take_too_long_are_not_held_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    house = House(Asked(job(Origin.SUSPECTS)))
    house.ward.begin()
    house.ward.proceed()
    house.start(job())
    house.round()
    assert house.gate.try_to_enter(job()) is None
    now[0] = 61.0
    house.round()
    house.round()
    assert house.gate.try_to_enter(job())


def test_a_copy_that_is_not_taken_keeps_others_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    asked = Asked()
    asked.moves_suspects_since = 0.0
    house = House(asked)
    house.ward.begin()
    house.round()
    assert house.gate.try_to_enter(job()) is None
    now[0] = 16.0
    house.round()
    assert house.gate.try_to_enter(job())


def test_who_waits_at_the_gate_can_be_taken_back() -> None:
    gate, one, answers = Gate(), job(), list[bool]()
    thread = threading.Thread(target=lambda: answers.append(gate.enter(one)))
    thread.start()
    assert gate.withdraw(one)
    thread.join()
    assert answers == [False]
    assert gate.is_empty


def test_who_has_begun_cannot_be_taken_back_and_leaves_once() -> None:
    gate, one = Gate(), job()
    gate.open()
    assert gate.enter(one)
    assert not gate.withdraw(one)
    assert not gate.is_empty
    assert gate.leave(one)
    assert not gate.leave(one)
    assert gate.is_empty
