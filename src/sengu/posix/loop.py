"""The loop: the one place that waits, on epoll and on the next deadline.

Callbacks take what is there and return; none of them waits.
"""

import heapq
import itertools
import math
import select
from collections.abc import Callable

from sengu.posix import clock

Callback = Callable[[], None]


class Timer:
    """A call at a moment to come. Cancelling one that has run does nothing."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def is_pending(self) -> bool:
        return self._callback is not None

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    """Descriptors and timers with their callbacks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._tie_breaker = itertools.count()

    def now(self) -> float:
        return clock.monotonic()

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call back when `fd` is ready for `events` (select.EPOLLIN, …); replaces a watch."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching; to be called before `fd` is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._tie_breaker), timer))
        return timer

    def run_once(self, until: float | None) -> None:
        """Wait for whatever comes first, at most until the moment `until`, and call back."""
        for fd, _events in self._epoll.poll(self._timeout(until)):
            callback = self._callbacks.get(fd)
            if callback is not None:  # else unwatched by a callback of this very round
                callback()
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].run()

    def _timeout(self, until: float | None) -> float | None:
        while self._timers and not self._timers[0][2].is_pending:
            heapq.heappop(self._timers)
        if self._timers:
            until = min(self._timers[0][0], math.inf if until is None else until)
        return None if until is None else max(0.0, until - self.now())

    def close(self) -> None:
        self._epoll.close()
