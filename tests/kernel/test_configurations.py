"""Configurations: what is wrong never gets to workers, and what is right outlives the server."""

import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sengu.config.tuning import Tuner
from sengu.errors import UsageError
from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.observed import Generation, Inquiry, Observed
from sengu.model.service import BootPolicy, ReadyByNotify, RestartPolicy, ServiceSpec, StopPolicy
from sengu.model.work import FileConfig, WorkOptions
from sengu.planner.reduce import Fact
from sengu.posix.swap_file import SwapFile
from sengu.server.configurations import Configurations, Found, Surroundings, tuned_spec
from sengu.server.environment import Environments
from tests.kernel.shelf import Shelf

STOP = StopPolicy(signal=15, grace_seconds=30.0)
OPTIONS = WorkOptions(target="jobs:Class", config=FileConfig("/jobs.toml"))
SPEC = ServiceSpec(
    name="jobs",
    command=("jobs:Class",),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
    application=Application(
        engine="sengu.work.engine",
        target="jobs:Class",
        options=msgspec.Raw(msgspec.json.encode(OPTIONS)),
        is_configured=True,
    ),
)


class Desk:
    """A server's configurations, and what it is told of them."""

    def __init__(self, shelf: Shelf, settings: dict[str, Any] | None = None) -> None:
        self.facts: list[Fact] = []
        self.told: list[int] = []
        self.observed = Observed(1, settings=settings or {})
        around = Surroundings(
            shelf,
            Environments(shelf, None),
            lambda: self.observed,
            self.facts.append,
            self.told.append,
        )
        self.configurations = Configurations(Tuner(SPEC, {}), around)

    def take(self, content: bytes, inquiry: int = 1, **settings: Any) -> None:
        fd = os.memfd_create("found")
        os.write(fd, content)
        try:
            self.configurations.take(1, Found(settings, fd), inquiry)
        finally:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf() as made:
        yield made


def content(shelf: Shelf) -> tuple[int, bytes]:
    return SwapFile(shelf.held["config/1"].fd).read()


def test_what_was_read_is_put_where_workers_find_it_and_they_are_told_after_it_is_on_record(
    shelf: Shelf,
) -> None:
    desk = Desk(shelf)
    desk.take(b"one", workers=8)
    assert content(shelf) == (1, b"one")
    (fact,) = desk.facts
    assert isinstance(fact, ev.Configured)
    assert (fact.workers, fact.is_new, fact.inquiry) == (8, True, 1)
    assert desk.told == [1]


def test_what_is_wrong_changes_nothing_and_nobody_is_told(shelf: Shelf) -> None:
    desk = Desk(shelf)
    desk.take(b"one")
    with pytest.raises(UsageError, match=r"/jobs\.toml: workers: '-3' is not"):
        desk.take(b"two", workers=-3)
    assert content(shelf) == (1, b"one")
    assert (len(desk.facts), desk.told) == (1, [1])


def test_a_memory_file_of_any_length_is_not_read_into_the_server(shelf: Shelf) -> None:
    desk = Desk(shelf)
    fd = os.memfd_create("found")
    os.ftruncate(fd, 1 << 45)
    with pytest.raises(UsageError, match="let workers read by themselves what is large"):
        desk.configurations.take(1, Found({}, fd), 1)
    assert (desk.facts, desk.told) == ([], [])


def test_another_server_goes_on_with_the_same_file_and_the_same_service(shelf: Shelf) -> None:
    settings: dict[str, Any] = {"workers": 3, "max_rss": "1m"}
    Desk(shelf).take(b"one", **settings)
    shelf.pass_on()
    heir = Desk(shelf, settings)
    application = heir.configurations.application
    assert application is not None
    assert application.wear.max_rss_bytes == 1 << 20
    heir.take(b"two", **settings)
    assert content(shelf) == (2, b"two")
    (fact,) = heir.facts
    assert isinstance(fact, ev.Configured)
    assert (fact.workers, fact.taken) == (None, ())


def test_what_one_who_was_killed_has_written_but_not_told_is_new(shelf: Shelf) -> None:
    Desk(shelf).take(b"one")
    shelf.pass_on()
    heir = Desk(shelf)
    heir.observed = Observed(1, generations={1: Generation(1, inquiry=Inquiry(1, 0.0))})
    heir.take(b"one")
    (fact,) = heir.facts
    assert isinstance(fact, ev.Configured)
    assert (fact.is_new, fact.version) == (True, 1)


def test_what_one_who_was_killed_has_told_is_told_to_workers_only(shelf: Shelf) -> None:
    Desk(shelf).take(b"one")
    shelf.pass_on()
    heir = Desk(shelf)
    heir.observed = Observed(1, generations={1: Generation(1, configuration=1)})
    heir.take(b"one")
    assert heir.facts == []
    assert heir.told == [1]


def test_that_of_a_generation_that_is_gone_is_let_go(shelf: Shelf) -> None:
    desk = Desk(shelf)
    desk.take(b"one")
    desk.configurations.forget(1)
    assert shelf.held == {}
    desk.configurations.forget(1)


def test_that_of_a_generation_that_went_before_our_time_is_let_go_too(shelf: Shelf) -> None:
    Desk(shelf).take(b"one")
    shelf.pass_on()
    Desk(shelf).configurations.forget(1)
    assert shelf.held == {}


def test_without_a_configuration_the_service_is_what_it_was_started_as(shelf: Shelf) -> None:
    assert tuned_spec(None, SPEC, {"workers": 8}) is SPEC
    assert tuned_spec(Tuner(SPEC, {}), SPEC, {"workers": 8}).workers == 8
