"""The quarters of the crew, in real cgroups, cleared by a real loop."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.posix.cgroups import Cgroups
from sengu.posix.loop import Loop
from sengu.server.quarters import Quarters
from tests.kernel.children import Child, nothing_left_open

_PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    with nothing_left_open():
        yield


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    found = Cgroups.find("quarters", os.getpid())
    if isinstance(found, str):
        assert "cgroup" in found
        pytest.skip(found)
    yield found
    found.kill_all(_PATIENCE_SECONDS)
    assert found.remove_all()


@pytest.fixture
def quarters(loop: Loop, cgroups: Cgroups) -> Quarters:
    return Quarters(loop, cgroups)


def _inhabit(quarters: Quarters, key: str) -> Child:
    """Somebody who lives there, and entered by a descriptor that was open already."""
    procs = quarters.open(key)
    assert procs is not None

    def live(child: Child) -> None:
        os.write(procs, b"0")
        child.tell("here")
        child.wait_for_go()

    child = Child(live)
    os.close(procs)
    child.wait_to_hear("here")
    return child


def _names(cgroups: Cgroups) -> list[str]:
    return sorted(cgroups.others([]))


def _run_until_gone(loop: Loop, path: str) -> None:
    deadline = loop.now() + _PATIENCE_SECONDS
    while Path(path).exists():
        assert loop.now() < deadline, f"{path} stays"
        loop.run_once(deadline)


def test_who_is_left_is_killed_and_the_place_given_up(
    loop: Loop, cgroups: Cgroups, quarters: Quarters
) -> None:
    with _inhabit(quarters, "worker/1"), _inhabit(quarters, "worker/2"):
        quarters.clear("worker/1")
        quarters.clear("worker/1")
        _run_until_gone(loop, f"{cgroups.directory}/worker_1")
        assert not cgroups.is_empty("worker/2")
        quarters.clear("worker/2")
        _run_until_gone(loop, f"{cgroups.directory}/worker_2")


def test_a_place_that_was_given_up_can_be_had_again(
    loop: Loop, cgroups: Cgroups, quarters: Quarters
) -> None:
    for _ in range(2):
        with _inhabit(quarters, "worker/1"):
            quarters.clear("worker/1")
            _run_until_gone(loop, f"{cgroups.directory}/worker_1")


def test_all_but_those_who_are_known_are_cleared(cgroups: Cgroups, quarters: Quarters) -> None:
    for key in ("worker/1", "worker/2", "generation/1"):
        quarters.assign(key)
    quarters.clear_others(["worker/2", "generation/1"])
    assert _names(cgroups) == ["generation_1", "worker_2"]


def test_nobody_stays_when_the_service_has_ended(cgroups: Cgroups, quarters: Quarters) -> None:
    with _inhabit(quarters, "worker/1"), _inhabit(quarters, "generation/1"):
        quarters.close()
        assert not os.path.exists(cgroups.directory)


def test_who_is_left_alone_stays(cgroups: Cgroups, quarters: Quarters) -> None:
    with _inhabit(quarters, "worker/1"):
        quarters.leave()
        quarters.clear("worker/1")
        quarters.close()
        assert not cgroups.is_empty("worker/1")
        cgroups.kill_all(_PATIENCE_SECONDS)


def test_a_limit_to_their_number_is_no_error(cgroups: Cgroups, quarters: Quarters) -> None:
    quarters.assign("worker/1")
    Path(cgroups.directory, "cgroup.max.descendants").write_text("1")
    assert quarters.assign("worker/2") == ""
    assert quarters.open("worker/2") is None
    quarters.clear("worker/2")


def test_without_cgroups_nothing_is_done(loop: Loop) -> None:
    quarters = Quarters(loop, None)
    assert quarters.assign("worker/1") == ""
    assert quarters.open("worker/1") is None
    quarters.clear("worker/1")
    quarters.clear_others([])
    quarters.close()
