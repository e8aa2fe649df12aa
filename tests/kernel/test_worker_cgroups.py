"""The cgroups of workers: real ones, cleared by a real loop."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.posix.cgroups import Cgroups
from sengu.posix.loop import Loop
from sengu.server.cgroups import WorkerCgroups
from tests.kernel.children import Child
from tests.support import lacks_cgroups

pytestmark = pytest.mark.usefixtures("nothing_left")

_PATIENCE_SECONDS = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    found = Cgroups.find("workers", os.getpid())
    if isinstance(found, str):
        lacks_cgroups(found)
    yield found
    found.kill_all(_PATIENCE_SECONDS)
    assert found.remove_all()


@pytest.fixture
def owned(loop: Loop, cgroups: Cgroups) -> WorkerCgroups:
    return WorkerCgroups(loop, cgroups)


def _inhabit(owned: WorkerCgroups, key: str) -> Child:
    """Somebody who lives there, and entered by a descriptor that was open already."""
    procs = owned.open(key)
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
    loop: Loop, cgroups: Cgroups, owned: WorkerCgroups
) -> None:
    with _inhabit(owned, "worker/1"), _inhabit(owned, "worker/2"):
        owned.clear("worker/1")
        owned.clear("worker/1")
        _run_until_gone(loop, f"{cgroups.directory}/worker_1")
        assert not cgroups.is_empty("worker/2")
        owned.clear("worker/2")
        _run_until_gone(loop, f"{cgroups.directory}/worker_2")


def test_a_place_that_was_given_up_can_be_had_again(
    loop: Loop, cgroups: Cgroups, owned: WorkerCgroups
) -> None:
    for _ in range(2):
        with _inhabit(owned, "worker/1"):
            owned.clear("worker/1")
            _run_until_gone(loop, f"{cgroups.directory}/worker_1")


def test_all_but_those_who_are_known_are_cleared(cgroups: Cgroups, owned: WorkerCgroups) -> None:
    for key in ("worker/1", "worker/2", "generation/1"):
        owned.assign(key)
    owned.clear_others(["worker/2", "generation/1"])
    assert _names(cgroups) == ["generation_1", "worker_2"]


def test_nobody_stays_when_the_service_has_ended(
    cgroups: Cgroups, owned: WorkerCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.cgroups._LAST_SECONDS", _PATIENCE_SECONDS)
    with _inhabit(owned, "worker/1"), _inhabit(owned, "generation/1"):
        owned.close()
        assert not os.path.exists(cgroups.directory)


def test_who_is_left_alone_stays(cgroups: Cgroups, owned: WorkerCgroups) -> None:
    with _inhabit(owned, "worker/1"):
        owned.leave()
        owned.clear("worker/1")
        owned.close()
        assert not cgroups.is_empty("worker/1")
        cgroups.kill_all(_PATIENCE_SECONDS)


def test_a_limit_to_their_number_is_no_error(cgroups: Cgroups, owned: WorkerCgroups) -> None:
    owned.assign("worker/1")
    Path(cgroups.directory, "cgroup.max.descendants").write_text("1")
    assert owned.assign("worker/2") == ""
    assert owned.open("worker/2") is None
    owned.clear("worker/2")


def test_without_cgroups_nothing_is_done(loop: Loop) -> None:
    owned = WorkerCgroups(loop, None)
    assert owned.assign("worker/1") == ""
    assert owned.open("worker/1") is None
    owned.clear("worker/1")
    owned.clear_others([])
    owned.close()
