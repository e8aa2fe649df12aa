"""sengu.testing: worker classes under unit tests of their own, with time that the test has."""

import asyncio
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import sengu
import sengu.testing
from sengu.worker.engine import LoadError


class Consumer(sengu.Worker):
    def setup(self) -> None:
        self.log.debug("set up")

    def run(self) -> None:
        while not self.stopping.wait(self.config.get("pause", 1.0)):
            self.log.info("work %s", self.config["n"])

    def stop(self) -> None:
        self.log.info("stop")

    def reload(self) -> None:
        self.log.info("reload")

    def teardown(self) -> None:
        self.log.info("teardown")


class Coroutine(sengu.Worker):
    async def setup(self) -> None:
        self.log.debug("set up")

    async def run(self) -> None:
        while not await self.stopping.async_wait(self.config.get("pause", 1.0)):
            self.log.info("work %s", self.config["n"])

    async def stop(self) -> None:
        await asyncio.to_thread(self.log.info, "stop")

    async def reload(self) -> None:
        self.log.info("reload")

    async def teardown(self) -> None:
        self.log.info("teardown")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no descriptor outlives a test."""
    before = set(threading.enumerate()), sorted(os.listdir("/proc/self/fd"))
    yield
    assert (set(threading.enumerate()), sorted(os.listdir("/proc/self/fd"))) == before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sengu.testing.runner.PATIENCE_SECONDS", 0.1)


@pytest.mark.parametrize("kind", [Consumer, Coroutine])
def test_a_worker_lives_its_whole_life(kind: type[sengu.Worker]) -> None:
    with sengu.testing.running(kind, config={"n": 7}) as worker:
        assert worker.messages == ["set up"]
        worker.advance(2.5)
        assert worker.messages[1:] == ["work 7", "work 7"]
        worker.reload({"n": 8})
        worker.advance(0.5)
        assert worker.messages[3:] == ["reload", "work 8"]
        worker.stop()
        assert worker.messages[5:] == ["stop", "teardown"]
        assert not worker.is_running


@pytest.mark.parametrize("kind", [Consumer, Coroutine])
def test_a_day_takes_no_time(kind: type[sengu.Worker]) -> None:
    began = time.monotonic()
    with sengu.testing.running(kind, config={"n": 1, "pause": 3600.0}) as worker:
        worker.advance(24 * 3600.0)
        assert worker.messages.count("work 1") == 24
    assert time.monotonic() - began < 60.0


@pytest.mark.parametrize("kind", [Consumer, Coroutine])
def test_no_time_goes_by_for_a_worker_until_it_is_advanced(kind: type[sengu.Worker]) -> None:
    with sengu.testing.running(kind, config={"n": 1, "pause": 0.001}) as worker:
        worker.advance(0.0)
        assert worker.messages == ["set up"]


@pytest.mark.parametrize("kind", [Consumer, Coroutine])
def test_the_end_of_the_block_stops_it(kind: type[sengu.Worker]) -> None:
    with sengu.testing.running(kind, config={"n": 1}) as worker:
        pass
    assert worker.messages == ["set up", "stop", "teardown"]


class Failing(sengu.Worker):
    def run(self) -> None:
        self.stopping.wait(1.0)
        raise ValueError("no good")

    def teardown(self) -> None:
        self.log.info("teardown")


class FailingCoroutine(Failing):
    async def run(self) -> None:  # type: ignore[override]
        await self.stopping.async_wait(1.0)
        raise ValueError("no good")


@pytest.mark.parametrize("kind", [Failing, FailingCoroutine])
def test_what_run_raises_is_raised_where_the_test_waits(kind: type[sengu.Worker]) -> None:
    with sengu.testing.running(kind) as worker:
        worker.advance(0.5)
        with pytest.raises(ValueError, match="no good"):
            worker.advance(0.5)
        assert worker.messages == ["teardown"]


@pytest.mark.parametrize("kind", [Failing, FailingCoroutine])
def test_what_run_raises_when_it_is_stopped_is_raised_at_the_end(
    kind: type[sengu.Worker],
) -> None:
    with pytest.raises(ValueError, match="no good"), sengu.testing.running(kind):
        pass


def test_what_the_test_raises_counts_more_than_what_the_worker_does_then() -> None:
    with pytest.raises(AssertionError, match="mine"), sengu.testing.running(Failing):
        raise AssertionError("mine")


def test_what_setup_raises_is_raised_at_the_beginning() -> None:
    class Unready(Consumer):
        def setup(self) -> None:
            raise OSError("no database")

    with pytest.raises(OSError, match="no database"), sengu.testing.running(Unready):
        pytest.fail("it began")


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_does_not_stop_is_told_with_what_it_is_at() -> None:
    lock = threading.Event()

    class Deaf(sengu.Worker):
        def run(self) -> None:
            wait_for_the_lock(lock)

    with sengu.testing.running(Deaf) as worker:
        with pytest.raises(TimeoutError, match=r"(?s)run.. has not ended .* wait_for_the_lock"):
            worker.stop()
        with pytest.raises(TimeoutError, match=r"(?s)has not come back .* wait_for_the_lock"):
            worker.advance(1.0)
        lock.set()
        worker.wait()


def wait_for_the_lock(lock: threading.Event) -> None:
    lock.wait()


def test_threads_of_the_worker_wait_for_the_same_time() -> None:
    class Threads(sengu.Worker):
        def run(self) -> None:
            one = threading.Thread(target=self.tick, args=(2.0, "slow"))
            one.start()
            self.tick(1.0, "quick")
            one.join()

        def tick(self, seconds: float, text: str) -> None:
            while not self.stopping.wait(seconds):
                self.log.info(text)

    with sengu.testing.running(Threads) as worker:
        worker.advance()
        worker.advance(1.5)
        worker.advance(1.0)
        assert sorted(worker.messages) == ["quick", "quick", "slow"]


def test_all_that_a_coroutine_sleeps_for_is_the_tests_time() -> None:
    class Tasks(sengu.Worker):
        async def run(self) -> None:
            task = asyncio.create_task(self.tick())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1000.0):
                    await asyncio.Event().wait()
            self.log.info("timeout")
            await self.stopping.async_wait()
            task.cancel()

        async def tick(self) -> None:
            await asyncio.sleep(999.0)
            self.log.info("tick")

    with sengu.testing.running(Tasks) as worker:
        worker.advance(999.5)
        assert worker.messages == ["tick"]
        worker.advance(0.5)
        assert worker.messages == ["tick", "timeout"]


def test_a_worker_whose_time_is_real_waits_for_what_comes() -> None:
    class Real(sengu.Worker):
        def setup(self) -> None:
            self.inbox: queue.Queue[str] = queue.Queue()

        def run(self) -> None:
            self.stopping.wait(0.001)
            self.log.info(self.inbox.get())

    with sengu.testing.running(Real, real_time=True) as worker:
        with pytest.raises(RuntimeError, match="time is real"):
            worker.advance(1.0)
        worker.worker.inbox.put("a message")  # type: ignore[attr-defined]
        worker.wait()
        assert worker.messages == ["a message"]


def test_what_is_shared_has_its_life_around_the_workers() -> None:
    class Shared(sengu.Server):
        def before_run(self) -> None:
            self.log.info("before_run %s", self.config["n"])
            self.text = "shared"

        def after_start(self) -> None:
            self.log.info("after_start")

        def after_run(self) -> None:
            self.log.info("after_run")

    class User(sengu.Worker):
        def run(self) -> None:
            self.log.info(self.server.text)

    with sengu.testing.running(User, server=Shared, config={"n": 3}) as worker:
        worker.wait()
    assert sorted(worker.messages) == ["after_run", "after_start", "before_run 3", "shared"]


def test_sockets_are_the_tests_own() -> None:
    class Listening(sengu.Worker):
        def setup(self) -> None:
            self.listener = self.sockets.listen_tcp("127.0.0.1", 0)
            with self.sockets.listen_tcp("127.0.0.1", 0) as other:
                assert other.getsockname() == self.listener.getsockname()
            with self.sockets.listen_udp("127.0.0.1", 0) as sock:
                assert sock.type == socket.SOCK_DGRAM

        def run(self) -> None:
            with self.listener, self.listener.accept()[0] as connection:
                connection.sendall(b"hello")

    with sengu.testing.running(Listening) as worker:
        address = worker.worker.listener.getsockname()  # type: ignore[attr-defined]
        with socket.create_connection(address) as client:
            assert client.recv(10) == b"hello"


def test_logs_are_kept_as_records_and_reach_pytest(caplog: pytest.LogCaptureFixture) -> None:
    class Telling(sengu.Worker):
        def run(self) -> None:
            self.log.warning("low", extra={"left": 3})

    with sengu.testing.running(Telling) as worker:
        worker.wait()
    (record,) = worker.logs
    assert (record.levelno, vars(record)["left"]) == (logging.WARNING, 3)
    assert caplog.messages == ["low"]


def test_a_configuration_that_no_worker_could_get_is_refused() -> None:
    with pytest.raises(LoadError, match=r"config: n\.when is a object"):  # noqa: SIM117
        with sengu.testing.running(Consumer, config={"n": {"when": object()}}):
            pytest.fail("it began")


def test_a_worker_has_a_slot() -> None:
    with sengu.testing.running(Consumer, config={"n": 1}, slot=3) as worker:
        assert (worker.worker.service, worker.worker.generation, worker.worker.slot) == (
            "test",
            1,
            3,
        )
