"""Parts of worker classes by themselves: the stop event, targets, files, beats, the logger."""

import asyncio
import io
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import sengu
from sengu.model.work import FileConfig, LogForm, WorkKind
from sengu.wire import scoreboard
from sengu.work import source, target
from sengu.work.api import StopEvent
from sengu.work.life import Beat, Worn
from sengu.work.logs import WorkerLogger, make_logger
from sengu.worker.board import Lane
from sengu.worker.engine import LoadError
from sengu.worker.identity import Identity

WHO = Identity("jobs", 2, 1, 4711)


@pytest.fixture
def stopping() -> Iterator[StopEvent]:
    event = StopEvent()
    yield event
    os.close(event.fileno())


def test_waiting_ends_when_the_time_is_over(stopping: StopEvent) -> None:
    assert stopping.wait(0.001) is False
    assert asyncio.run(stopping.async_wait(0.001)) is False
    assert not stopping.is_set()


def test_once_it_is_set_nobody_waits(stopping: StopEvent) -> None:
    stopping.set()
    stopping.set()
    begin = time.monotonic()
    assert stopping.wait()
    assert stopping.wait(100.0)
    assert stopping.is_set()
    assert asyncio.run(stopping.async_wait(100.0))
    assert select.select([stopping], [], [], 0)[0]
    assert time.monotonic() - begin < 50.0


def test_all_threads_that_wait_wake_at_once(stopping: StopEvent) -> None:
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(stopping.wait())) for _ in range(5)]
    for thread in threads:
        thread.start()
    stopping.set()
    for thread in threads:
        thread.join(10.0)
    assert woken == [True] * 5


def test_all_tasks_that_wait_wake_at_once(stopping: StopEvent) -> None:
    async def wait_all() -> list[bool]:
        tasks = [asyncio.create_task(stopping.async_wait()) for _ in range(5)]
        tasks.append(asyncio.create_task(stopping.async_wait(100.0)))
        await asyncio.sleep(0)
        threading.Thread(target=stopping.set).start()
        return await asyncio.gather(*tasks)

    before = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(wait_all()) == [True] * 6
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def importing(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose modules can be imported; whatever is, is forgotten afterwards."""
    monkeypatch.chdir(free_path)
    monkeypatch.setattr(sys, "path", [str(free_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield free_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


CLASSES = """
import sengu
class Consumer(sengu.Worker):
    class Inner(sengu.Worker): pass
class Plain: pass
number = 3
if __name__ == "__main__": raise SystemExit("it was run")
"""


@pytest.mark.parametrize("place", ["jobs_of_test", "jobs_of_test.py", "package_of_test.jobs"])
@pytest.mark.parametrize("name", ["Consumer", "Consumer.Inner"])
def test_a_class_is_found_in_a_module_and_in_a_script(
    importing: Path, place: str, name: str
) -> None:
    (importing / "package_of_test").mkdir()
    for path in ("jobs_of_test.py", "package_of_test/jobs.py"):
        (importing / path).write_text(CLASSES)
    module, found = target.find_class(f"{place}:{name}", sengu.Worker)
    assert found.__qualname__ == name
    assert found.__module__ == module.__name__
    assert target.find(f"{place}:{name}")[1] is found  # it is imported once


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs_of_test", "'jobs_of_test' names no class; write module:Class, such as"),
        ("jobs_of_test:Consumr", "jobs_of_test has no Consumr; did you mean Consumer?"),
        ("jobs_of_test:zzz", "jobs_of_test has no zzz; check the name"),
        ("jobs_of_test:Plain", "is no subclass of sengu.Worker; write `class Plain"),
        ("jobs_of_test:number", "jobs_of_test:number is no subclass of sengu.Worker"),
        ("nowhere_of_test:A", "no module named nowhere_of_test in "),
        ("nowhere.py:A", "there is no script nowhere.py; check the path"),
        ("broken_of_test:A", "cannot import broken_of_test: ZeroDivisionError: division by zero"),
        ("broken_of_test.py:A", "cannot import broken_of_test.py: ZeroDivisionError"),
        ("leaving_of_test:A", "cannot import leaving_of_test: SystemExit: 3"),
        ("needing_of_test:A", "ModuleNotFoundError: No module named 'missing_of_test'"),
    ],
)
def test_a_class_that_is_not_there_is_told(importing: Path, text: str, problem: str) -> None:
    for name, code in (
        ("jobs", CLASSES),
        ("broken", "1 / 0"),
        ("leaving", "raise SystemExit(3)"),
        ("needing", "import missing_of_test"),
    ):
        (importing / f"{name}_of_test.py").write_text(code)
    with pytest.raises(LoadError) as caught:
        target.find_class(text, sengu.Worker)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.toml", ""), ("c.yaml", ""), ("c.yml", "# n: 1\n"), ("c.toml", "# n = 1\n")],
)
def test_an_empty_file_is_an_empty_configuration(free_path: Path, name: str, text: str) -> None:
    (free_path / name).write_text(text)
    assert source.evaluate(FileConfig(str(free_path / name))) == {}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("c.json", "", "c.json is empty, which is no JSON; write {}"),
        ("c.json", " \n", "c.json is empty, which is no JSON; write {}"),
        ("c.json", "null", "c.json is a NoneType, and has to be a mapping"),
        ("c.yaml", "[]", "c.yaml is a list, and has to be a mapping"),
        ("c.yaml", "false", "c.yaml is a bool, and has to be a mapping"),
    ],
)
def test_a_file_that_is_no_mapping_is_told(
    free_path: Path, name: str, text: str, problem: str
) -> None:
    (free_path / name).write_text(text)
    with pytest.raises(LoadError) as caught:
        source.evaluate(FileConfig(str(free_path / name)))
    assert problem in str(caught.value)


def test_a_beat_is_the_last_moment_of_a_line_and_ends_with_the_worker() -> None:
    memory = memoryview(bytearray(scoreboard.LINE_BYTES * 2))
    beat = Beat(Lane(memory, 0))
    assert not scoreboard.read_line(memory, 0).is_busy
    beat()
    first = scoreboard.read_line(memory, 0)
    beat()
    second = scoreboard.read_line(memory, 0)
    assert first.is_busy
    assert first.request == scoreboard.HEARTBEAT
    assert second.started_at == first.started_at
    assert second.progress_at > first.progress_at
    beat.end()
    beat()
    assert not scoreboard.read_line(memory, 0).is_busy


def test_a_first_beat_after_the_end_counts_for_nothing() -> None:
    memory = memoryview(bytearray(scoreboard.LINE_BYTES * 2))
    beat = Beat(Lane(memory, 0))
    beat.end()
    beat()
    assert not scoreboard.read_line(memory, 0).is_busy


def test_a_first_beat_that_the_end_overtakes_counts_for_nothing() -> None:
    class Overtaken(Lane):
        def begin(self, now: float, head: bytes) -> None:
            beat.end()  # as another thread would
            super().begin(now, head)

    memory = memoryview(bytearray(scoreboard.LINE_BYTES * 2))
    beat = Beat(Overtaken(memory, 0))
    beat()
    assert not scoreboard.read_line(memory, 0).is_busy


def log_of(monkeypatch: pytest.MonkeyPatch, form: LogForm) -> tuple[WorkerLogger, io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return make_logger(WHO, "trace", form), stream


def test_a_line_of_text_tells_who_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, stream = log_of(monkeypatch, LogForm.TEXT)
    logger.trace("awesome %s", "work", extra={"n": 3, "word": "a b"})
    moment, line = stream.getvalue().split(" ", 1)
    assert line == "TRACE jobs[2/1 4711] awesome work n=3 word=a b\n"
    assert len(moment) == len("12:00:00.123")


def test_a_line_of_json_is_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, stream = log_of(monkeypatch, LogForm.JSON)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed", extra={"path": Path("/tmp")})
    (line,) = stream.getvalue().splitlines()
    found = msgspec.json.decode(line)
    assert found.pop("time") > 0
    assert found.pop("exception").endswith("ValueError: two\nlines")
    assert found == {
        "level": "error",
        "service": "jobs",
        "generation": 2,
        "slot": 1,
        "pid": 4711,
        "message": "failed",
        "path": "/tmp",
    }


def test_a_logger_of_a_worker_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, stream = log_of(monkeypatch, LogForm.TEXT)
    other = logging.getLogger("jobs")
    assert other is not logger
    make_logger(WHO, "warning", LogForm.TEXT).info("too low")
    assert stream.getvalue() == ""


class Coroutine(sengu.Worker):
    async def run(self) -> None:
        return


class Program(sengu.Worker):
    def command(self) -> list[str]:
        return ["true"]


class Plain(sengu.Worker):
    def run(self) -> None:
        return


@pytest.mark.parametrize(
    ("found", "kind", "advice"),
    [
        (Coroutine, WorkKind.PROCESS, "add --kind async"),
        (Coroutine, WorkKind.THREAD, "add --kind async"),
        (Program, WorkKind.PROCESS, "add --kind spawn"),
        (Plain, WorkKind.SPAWN, "has no command()"),
        (sengu.Worker, WorkKind.PROCESS, "has no run(); write one"),
    ],
)
def test_a_class_that_cannot_run_as_its_kind_is_not_deployed(
    found: type[sengu.Worker], kind: WorkKind, advice: str
) -> None:
    with pytest.raises(LoadError) as caught:
        target.check_kind(found, kind, "jobs:It")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (Plain, WorkKind.PROCESS),
        (Plain, WorkKind.THREAD),
        (Plain, WorkKind.ASYNC),
        (Coroutine, WorkKind.ASYNC),
        (Coroutine, WorkKind.EMBEDDED),
        (Program, WorkKind.SPAWN),
    ],
)
def test_a_class_runs_as_each_kind_that_it_is_written_for(
    found: type[sengu.Worker], kind: WorkKind
) -> None:
    target.check_kind(found, kind, "jobs:It")


@pytest.mark.parametrize(
    ("reason", "told"),
    [("no connection", "no connection"), ("a\nREADY=1", "a READY=1"), ("", "it says so")],
)
def test_that_a_worker_is_worn_is_told_once_and_on_one_line(reason: str, told: str) -> None:
    reasons: list[str] = []
    worker = sengu.Worker()
    worker.worn("nobody is there to hear it")
    worker._worn = Worn(reasons.append)
    worker.worn(reason)
    worker.worn("again")
    assert reasons == [told]
