"""Time that goes by when the test says so, for workers that are coroutines. Imported by `runner`.

The loop's own clock is the test's, so everything in it goes by that: `asyncio.sleep`, timeouts, and
`stopping.async_wait`.
"""

import asyncio
import math
import selectors
import threading


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Never sleeps for a time: it waits for what comes in, or for the test to `advance`."""

    def __init__(self, patience_seconds: float) -> None:
        self._now = 0.0
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._due: float | None = None  # when there is more to do; None while something is done
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def rest(self, seconds: float) -> None:
        """Called by the loop: nothing is to be done before."""
        with self._changed:
            self._due = self._now + seconds
            self._changed.notify_all()

    def wake(self) -> None:
        """Called by the loop."""
        with self._changed:
            self._due = None

    def advance(self, seconds: float) -> None:
        """Let time go by, and wait until all is done that is due. Raises TimeoutError."""
        target = self._now + seconds
        with self._changed:
            while (due := self._await_rest()) <= target:
                self._due = None
                self._now = max(due, self._now)
                self.call_soon_threadsafe(_nothing)
            self._now = target

    def _await_rest(self) -> float:
        if not self._changed.wait_for(lambda: self._due is not None, self._patience_seconds):
            raise TimeoutError(
                f"the worker's event loop has not come to rest for {self._patience_seconds:g} s; "
                "something in it blocks, or does not end"
            )
        assert self._due is not None
        return self._due


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: FakeTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        self._loop.rest(math.inf if timeout is None else timeout)
        try:
            return super().select(None)
        finally:
            self._loop.wake()


def _nothing() -> None:
    """So that the loop looks at its clock."""
