"""A worker's life: open for connections, then draining until nobody is left or time is up.

What it was asked to do comes from the runtime; `loop` does the work. Made by `engine`.
"""

import math
import random

from sengu.http.connections import QUIET_SECONDS
from sengu.http.loop import Loop
from sengu.http.site import Site
from sengu.posix import clock
from sengu.worker.runtime import Runtime, Stopping


class Drain:
    """RETIRE: nothing new; idle connections have until the end to send one more request, whose
    answer says that the connection closes. STOP: what is in the queue already is served, and idle
    connections are closed after a short quiet."""

    def __init__(self, loop: Loop, site: Site, runtime: Runtime) -> None:
        self._loop = loop
        self._site = site
        self._runtime = runtime
        self._stopping = Stopping.NO
        self._worn_at = _worn_at(runtime)

    def run(self) -> None:
        self._loop.watch(self._runtime.wake_fd, self._hear)
        if self._site.log is not None or self._worn_at is not None:
            self._loop.each_round = self._after_round
        self._loop.acceptor.open()
        self._runtime.ready()
        self._loop.run()

    def _hear(self) -> None:
        """Something may have been asked of the worker."""
        self._runtime.calm()
        if self._runtime.stopping is not self._stopping:
            self._begin(self._runtime.stopping)

    def _begin(self, stopping: Stopping) -> None:
        self._stopping = stopping
        if stopping is Stopping.STOP:
            self._loop.accept_all()
        self._loop.end_by(self._runtime.drain_until)
        if stopping is Stopping.STOP:
            self._loop.expire_silent(clock.monotonic() + QUIET_SECONDS)

    def _after_round(self) -> None:
        if self._site.log is not None:
            self._site.log.flush()
        if self._worn_at is not None:
            requests = sum(lane.requests for lane in self._runtime.board.lanes)
            if requests >= self._worn_at:
                self._worn_at = None
                self._runtime.worn(f"max-requests {self._runtime.application.wear.max_requests}")


def _worn_at(runtime: Runtime) -> int | None:
    """After how many requests this worker is worn out: somewhat before the others, or after."""
    wear = runtime.application.wear
    if wear.max_requests is None:
        return None
    return math.ceil(wear.max_requests * (1.0 - random.random() * wear.jitter))
