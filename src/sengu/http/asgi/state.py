"""What all connections of a worker share: options, the Date, the tick, and how far the drain is.

It is uvicorn's `ServerState` with more in it, because that is what uvicorn's protocols are given.
Knows of connections what `Guest` says. Used by `lifecycle`, `connection` and `websocket`.
"""

import asyncio
import math
from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol, cast

from uvicorn.server import ServerState

from sengu.http.head import HeadLimits
from sengu.model.web import WebOptions
from sengu.posix import clock
from sengu.worker.board import Lane
from sengu.worker.runtime import Stopping

_TICK_SECONDS = 1.0
_DRAIN_TICK_SECONDS = 0.1
_QUIET_SECONDS = 0.5  # how long one who is connected may be silent when the service stops


class Guest(Protocol):
    """A connection, of HTTP or a websocket. After `deadline` it is told to `expire`."""

    deadline: float

    def expire(self, now: float) -> None:
        """Its time is up: end it, or set a new deadline."""

    def retire(self) -> None:
        """The worker drains. Called again and again until the connection has ended."""

    def dismiss(self) -> None:
        """The drain's time runs out: what has no end of its own ends now."""

    def abort(self) -> None:
        """Close the connection, whatever is going on."""


class State(ServerState):
    """Shared by the connections of a worker."""

    def __init__(self, options: WebOptions, lane: Lane) -> None:
        super().__init__()
        self.options = options
        self.head_limits = HeadLimits.of(options.limits)
        # A head that is shorter as a whole has no line that is too long.
        self.smallest_limit = min(self.head_limits.line_bytes, self.head_limits.field_bytes)
        self.stopping = Stopping.NO
        self.arriving: set[asyncio.Task[None]] = set()  # accepted, before there is a protocol
        self.on_tick: list[Callable[[float], None]] = []
        self.on_left: list[Callable[[], None]] = []
        self._tick_seconds = _TICK_SECONDS
        self._quiet_seconds = math.inf
        self.idle_until = 0.0
        self._idle_seconds = options.timeouts.keep_alive_seconds
        self._lane = lane
        self._timer: asyncio.TimerHandle | None = None

    @property
    def guests(self) -> set[Guest]:
        return cast(set[Guest], self.connections)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is connected, and no call of the application goes on."""
        return not (self.connections or self.tasks or self.arriving)

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.connections) + len(self.arriving) >= self.options.limits.connections

    def first_deadline(self) -> float:
        """When one who has just come must have begun to send a request."""
        seconds = self.options.timeouts.header_seconds
        return clock.monotonic() + min(seconds, self._quiet_seconds)

    def expect(self, arrival: asyncio.Task[None]) -> None:
        """Somebody was accepted."""
        self.arriving.add(arrival)
        arrival.add_done_callback(self.arriving.discard)
        if self._timer is None:
            self._tick()

    def arrived(self) -> None:
        """Somebody has a protocol."""
        self._lane.connections = len(self.connections)

    def left(self) -> None:
        """Somebody's connection has ended."""
        self._lane.connections = len(self.connections)
        for call in self.on_left:
            call()

    def stop(self, how: Stopping) -> None:
        """Everybody's next answer says `connection: close`."""
        self.stopping = how
        self._tick_seconds = _DRAIN_TICK_SECONDS
        if how is Stopping.STOP:
            self._quiet_seconds = _QUIET_SECONDS
            self._idle_seconds = min(self._idle_seconds, _QUIET_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

    def close(self) -> None:
        """No more ticks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Once a second while anybody is connected: an idle worker sleeps."""
        now = clock.monotonic()
        # For who has got his answer until the next tick, so that no response reads the clock.
        self.idle_until = now + self._tick_seconds + self._idle_seconds
        self.default_headers = [
            (b"date", formatdate(clock.wall(), usegmt=True).encode()),
            (b"server", b"sengu"),
        ]
        for guest in [one for one in self.guests if one.deadline <= now]:
            guest.expire(now)
        if self.stopping is not Stopping.NO:
            for guest in tuple(self.guests):
                guest.retire()
        for call in self.on_tick:
            call(now)
        if self.is_empty:
            self._timer = None
            return
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)
