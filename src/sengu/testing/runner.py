"""A worker that runs in a thread of the test. Imported as `sengu.testing`."""

import contextlib
import inspect
import logging
import os
import types
from collections.abc import Iterator, Mapping
from typing import Any

from sengu.testing.clock import Clock, FakeStopEvent
from sengu.testing.sockets import LocalSockets
from sengu.testing.threads import LoopThread, PlainThread, WorkerThread
from sengu.work.api import Server, StopEvent, Worker
from sengu.work.logs import TRACE, WorkerLogger
from sengu.work.source import plain

# Real ones: how long a test waits for anything.
PATIENCE_SECONDS = 10.0


class Running:
    """A worker under test, and its own: `worker`, what it has logged, its time.

    What its methods raise is raised here, by the next call or at the end.
    """

    def __init__(
        self, worker: Worker, thread: WorkerThread, records: list[logging.LogRecord]
    ) -> None:
        self.worker = worker
        self.logs = records
        self._thread = thread

    @property
    def messages(self) -> list[str]:
        """The texts of what it has logged."""
        return [record.getMessage() for record in self.logs]

    @property
    def is_running(self) -> bool:
        """Whether `run` and `teardown` have not ended yet."""
        return self._thread.is_alive()

    def advance(self, seconds: float = 0.0) -> None:
        """Let time go by for the worker, and wait until it has done what is due.

        It is at rest again then: in `self.stopping.wait`, or, if it is a coroutine, waiting for
        anything. Raises TimeoutError when it does not come to rest.
        """
        self._thread.advance(seconds)
        self._thread.raise_problem()

    def reload(self, config: Mapping[str, Any]) -> None:
        """Give it another configuration, and call its `reload`."""
        self.worker.config = _freeze(config)
        self._thread.call("reload")
        self._thread.raise_problem()

    def stop(self) -> None:
        """Ask it to stop, and wait until it has ended. Raises TimeoutError when it does not."""
        self._thread.stop()
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        self._thread.await_end()
        self._thread.raise_problem()


@contextlib.contextmanager
def running(
    worker: type[Worker],
    *,
    config: Mapping[str, Any] | None = None,
    server: type[Server] | None = None,
    slot: int = 0,
    real_time: bool = False,
) -> Iterator[Running]:
    """Set the worker up, run it in a thread, and stop it at the end. It is any kind but `spawn`.

    Its time stands still: `advance` lets it go by, unless it is to be `real_time`. `self.sockets`
    opens sockets of its own.
    """
    sockets = LocalSockets()
    records: list[logging.LogRecord] = []
    one = worker()
    one.service, one.generation, one.slot = "test", 1, slot
    one.config = _freeze(config or {})
    one.log = _make_logger(records)
    one._open_sockets = lambda: sockets
    one.server = None if server is None else _begin(server(), one)
    thread = _make_thread(one, real_time)
    under_test = Running(one, thread, records)
    try:
        thread.begin()
        thread.raise_problem()
        if one.server is not None:
            one.server.after_start()
        yield under_test
    except BaseException:  # whatever the test raises
        with contextlib.suppress(Exception):  # what has failed first is what counts
            under_test.stop()
        raise
    else:
        under_test.stop()
    finally:
        if one.server is not None:
            one.server.after_run()
        sockets.close()
        if not thread.is_alive():
            os.close(one.stopping.fileno())


class _Keeper(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def _begin(server: Server, worker: Worker) -> Server:
    server.service, server.generation = worker.service, worker.generation
    server.config, server.log = worker.config, worker.log
    server._open_sockets = worker._open_sockets
    server.before_run()
    return server


def _freeze(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return types.MappingProxyType(plain(config, "config"))


def _make_logger(records: list[logging.LogRecord]) -> WorkerLogger:
    logging.addLevelName(TRACE, "TRACE")
    logger = WorkerLogger("test", TRACE)
    logger.addHandler(_Keeper(records))
    logger.parent = logging.getLogger()  # where pytest listens
    return logger


def _make_thread(worker: Worker, real_time: bool) -> WorkerThread:
    if inspect.iscoroutinefunction(worker.run):
        worker.stopping = StopEvent()
        return LoopThread(worker, real_time, PATIENCE_SECONDS)
    clock = None if real_time else Clock(PATIENCE_SECONDS)
    worker.stopping = StopEvent() if clock is None else FakeStopEvent(clock)
    return PlainThread(worker, clock, PATIENCE_SECONDS)
