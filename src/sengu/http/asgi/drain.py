"""The end of a worker: waits until it is told to stop, and then until nobody is left.

Decides when; how a connection ends is its own affair (`state.Guest`). Used by `lifecycle`.
"""

import asyncio

from sengu.http.asgi.acceptor import Acceptor
from sengu.http.asgi.state import State
from sengu.posix import clock
from sengu.worker.runtime import Runtime, Stopping

# The end of the time to drain, in parts of it: who has no end of his own is told to come to one,
# then is cut off, and what is left is for the application's shutdown.
_TELL_PART, _MAX_TELL_SECONDS = 0.2, 4.0
_CUT_PART, _MAX_CUT_SECONDS = 0.1, 2.0


class Drain:
    """One worker's."""

    def __init__(self, runtime: Runtime, state: State, acceptor: Acceptor) -> None:
        self._runtime = runtime
        self._state = state
        self._acceptor = acceptor
        self._changed = asyncio.Event()
        self._begun_at = 0.0
        state.on_tick.append(lambda _now: self._changed.set())
        state.on_left.append(self._changed.set)

    async def run(self) -> None:
        """Return when the worker has drained, or the time to is over."""
        loop = asyncio.get_running_loop()
        # Both event loops let a signal's Python handler run as soon as it comes, and that makes
        # this descriptor readable.
        loop.add_reader(self._runtime.wake_fd, self._woken)
        self._woken()
        while not self._is_over():
            await self._changed.wait()
            self._changed.clear()
        loop.remove_reader(self._runtime.wake_fd)
        await self._cut()
        self._state.close()

    def _woken(self) -> None:
        self._runtime.calm()
        how = self._runtime.stopping
        if how is self._state.stopping:
            return
        if self._state.stopping is Stopping.NO:
            self._begun_at = clock.monotonic()
        self._acceptor.stop(take_the_rest=how is Stopping.STOP)
        self._state.stop(how)
        self._changed.set()

    def _left(self) -> float:
        return max(0.0, self._runtime.drain_until - clock.monotonic())

    def _is_over(self) -> bool:
        if self._state.stopping is Stopping.NO:
            return False
        if self._state.is_empty:
            return True
        left = self._left()
        whole = self._runtime.drain_until - self._begun_at
        if left <= min(_MAX_TELL_SECONDS, whole * _TELL_PART):
            for guest in tuple(self._state.guests):
                guest.dismiss()
        return left <= min(_MAX_CUT_SECONDS, whole * _CUT_PART)

    async def _cut(self) -> None:
        """End what has not ended."""
        tasks = (*self._state.tasks, *self._state.arriving)
        for task in tasks:
            task.cancel()
        for guest in tuple(self._state.guests):
            guest.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=self._left() / 2)
