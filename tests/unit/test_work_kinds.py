"""Worker classes run in this process, by their kind, until they end by themselves."""

import asyncio
import os
import threading
from collections.abc import Iterator

import msgspec
import pytest

from sengu import Worker
from sengu.model.application import Application
from sengu.model.work import WorkKind, WorkOptions
from sengu.wire import scoreboard
from sengu.work import kinds
from sengu.work.api import StopEvent
from sengu.work.configuration import Configuration
from sengu.work.life import Tending
from sengu.work.logs import make_logger
from sengu.worker.board import Board
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime, Stopping

WHO = Identity("jobs", 1, 0, 4711)
OPTIONS = WorkOptions("jobs:Worker", kind=WorkKind.ASYNC)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    options = msgspec.Raw(msgspec.json.encode(OPTIONS))
    application = Application("sengu.work.engine", OPTIONS.target, options=options)
    memory = memoryview(bytearray(2 * scoreboard.LINE_BYTES))
    runtime = Runtime(WHO, application, (), Board(memory, 0, 1))
    yield runtime
    for fd in (runtime.wake_fd, runtime._wake_end):
        os.close(fd)


def run(worker: Worker, runtime: Runtime) -> None:
    worker.stopping = StopEvent()
    worker.log = make_logger(WHO, "info", OPTIONS.log_form)
    tending = Tending(Configuration(None, {}), OPTIONS)
    try:
        kinds.run(kinds.Cast(runtime, lambda _: worker, 1, tending), OPTIONS)
    finally:
        os.close(worker.stopping.fileno())


def attendants() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sengu-attendant"]


class Ending(Worker):
    """Is asked to stop while it ends by itself."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.done: list[str] = []

    async def run(self) -> None:
        self._stop_begins = asyncio.Event()

    async def stop(self) -> None:
        self._stop_begins.set()
        for _ in range(100):
            await asyncio.sleep(0)
        self.done.append("stopped")

    async def teardown(self) -> None:
        self._runtime.stop(Stopping.RETIRE)
        await self._stop_begins.wait()
        self.done.append("torn down")


class Failing(Ending):
    async def teardown(self) -> None:
        await super().teardown()
        raise ValueError("it was broken before")


def test_a_stop_that_comes_during_teardown_is_told_to_its_end(runtime: Runtime) -> None:
    worker = Ending(runtime)
    run(worker, runtime)
    assert worker.done == ["torn down", "stopped"]


def test_so_it_is_when_teardown_fails(runtime: Runtime) -> None:
    worker = Failing(runtime)
    with pytest.raises(ValueError, match="broken before"):
        run(worker, runtime)
    assert worker.done == ["torn down", "stopped"]


def test_nobody_calls_a_loop_that_has_closed(runtime: Runtime) -> None:
    class Short(Worker):
        async def run(self) -> None:
            return

    before = attendants()
    run(Short(), runtime)
    assert attendants() == before
