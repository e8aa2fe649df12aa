"""The life of a worker under test, in a thread. Imported by `runner`."""

import asyncio
import inspect
import math
import threading
from typing import Any

from sengu.testing.clock import Clock, describe
from sengu.testing.loop import FakeTimeLoop
from sengu.work.api import Worker


class WorkerThread:
    """What both kinds have in common. `clock` is None when time is real."""

    def __init__(self, worker: Worker, patience_seconds: float) -> None:
        self._worker = worker
        self._patience_seconds = patience_seconds
        self._thread = threading.Thread(target=self._live, name="sengu-testing", daemon=True)
        self._is_set_up = threading.Event()
        self._has_told = threading.Event()
        self._problem: BaseException | None = None

    def begin(self) -> None:
        """Start it, and wait until it is set up. Raises TimeoutError."""
        self._thread.start()
        self._await(self._is_set_up.wait(self._patience_seconds), "setup()")

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def raise_problem(self) -> None:
        """What has ended the worker, once."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def stop(self) -> None:
        """Ask it to stop."""
        if self.is_alive() and not self._worker.stopping.is_set():
            self._worker.stopping.set()
            try:
                self.call("stop")
            finally:
                self._has_told.set()

    def await_end(self) -> None:
        """Raises TimeoutError."""
        self._thread.join(self._patience_seconds)
        self._await(not self.is_alive(), "run()")

    def advance(self, seconds: float) -> None:
        """Raises TimeoutError."""
        raise NotImplementedError

    def call(self, method: str) -> None:
        """Call that method of the worker, and wait until it has returned."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """All is over: whoever waits for it to be at rest waits no more."""

    def _live(self) -> None:
        try:
            self._run()
        except BaseException as problem:  # it is raised where the test waits
            self._problem = problem
        finally:
            self._is_set_up.set()
            self._end()

    def _await(self, has_ended: bool, what: str) -> None:
        if not has_ended:
            raise TimeoutError(
                f"{what} has not ended within {self._patience_seconds:g} s:\n"
                f"{describe({self._thread})}"
            )


class PlainThread(WorkerThread):
    """Of a worker with a plain `run`."""

    def __init__(self, worker: Worker, clock: Clock | None, patience_seconds: float) -> None:
        super().__init__(worker, patience_seconds)
        self._clock = clock

    def advance(self, seconds: float) -> None:
        if self._clock is None:
            raise _real_time()
        self._clock.advance(seconds)

    def call(self, method: str) -> None:
        getattr(self._worker, method)()

    def begin(self) -> None:
        if self._clock is not None:
            self._clock.begin(self._thread)
        super().begin()

    def _run(self) -> None:
        worker = self._worker
        worker.setup()
        self._is_set_up.set()
        try:
            worker.run()
        finally:
            if worker.stopping.is_set():
                self._has_told.wait(self._patience_seconds)
            worker.teardown()

    def _end(self) -> None:
        if self._clock is not None:
            self._clock.end()


class LoopThread(WorkerThread):
    """Of a worker whose `run` is a coroutine function."""

    def __init__(self, worker: Worker, real_time: bool, patience_seconds: float) -> None:
        super().__init__(worker, patience_seconds)
        self._loop = asyncio.SelectorEventLoop() if real_time else FakeTimeLoop(patience_seconds)

    def advance(self, seconds: float) -> None:
        if not isinstance(self._loop, FakeTimeLoop):
            raise _real_time()
        self._loop.advance(seconds)

    def call(self, method: str) -> None:
        async def call() -> None:
            await _maybe(getattr(self._worker, method)())

        begun = asyncio.run_coroutine_threadsafe(call(), self._loop)
        begun.result(self._patience_seconds)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    def _end(self) -> None:
        if isinstance(self._loop, FakeTimeLoop):
            self._loop.rest(math.inf)

    async def _main(self) -> None:
        worker = self._worker
        await _maybe(worker.setup())
        self._is_set_up.set()
        try:
            await _maybe(worker.run())
        finally:
            if worker.stopping.is_set():
                await asyncio.to_thread(self._has_told.wait, self._patience_seconds)
            await _maybe(worker.teardown())


async def _maybe(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def _real_time() -> RuntimeError:
    return RuntimeError("time is real for this worker; leave out real_time=True to advance it")
