"""The life of an ASGI worker: startup, ready, serve, drain, shutdown.

Runs in the event loop. Decides when; how is in the modules it imports. Used by `engine`.
"""

import asyncio
import math
import random
import ssl
from collections.abc import Callable

from uvicorn.config import Config

from sengu.http.access_log import Log
from sengu.http.asgi.acceptor import Acceptor
from sengu.http.asgi.connection import HttpConnection
from sengu.http.asgi.front import Front, wrap
from sengu.http.asgi.hand import Hand
from sengu.http.asgi.lifespan import Lifespan
from sengu.http.asgi.state import State
from sengu.http.asgi.types import App
from sengu.http.proxy import ProxyHeader
from sengu.model.web import WebOptions
from sengu.posix import clock
from sengu.worker.runtime import Runtime, Stopping

# The end of the time to drain, in parts of it: who has no end of his own is told to come to one,
# then is cut off, and what is left is for the application's shutdown.
_TELL_PART, _MAX_TELL_SECONDS = 0.2, 4.0
_CUT_PART, _MAX_CUT_SECONDS = 0.1, 2.0


class Lifecycle:
    """One worker's. `log` is the access log, if there is to be one."""

    def __init__(
        self, app: App, options: WebOptions, tls: ssl.SSLContext | None, log: Log | None
    ) -> None:
        self._app = app
        self._front = wrap(app, options, log)
        self._options = options
        self._tls = tls
        self._log = log

    async def run(self, runtime: Runtime) -> None:
        """Serve until the runtime says stop, and return when all is drained. Raises LoadError."""
        lifespan = Lifespan(self._app)
        await lifespan.startup()
        if self._log is not None:
            runtime.on_reopen.append(self._log.reopen)
        hand = Hand(runtime.board.lanes[0], runtime.application.request_timeout_seconds)
        state = State(self._options, runtime.board.lanes[0])
        state.on_tick += [hand.tick, _wear(runtime)]
        config = configure(Front(self._front, hand, runtime))

        def make(header: ProxyHeader | None) -> asyncio.Protocol:
            connection = HttpConnection(config, state, lifespan.state)
            connection.proxy_header = header
            return connection

        acceptor = Acceptor(runtime.listeners, make, self._options, self._tls)
        acceptor.count_connected = lambda: len(state.connections)
        state.on_left.append(acceptor.resume)
        acceptor.start()
        runtime.ready()
        await _Drain(runtime, state, acceptor).run()
        state.close()
        await lifespan.shutdown(max(0.0, runtime.drain_until - clock.monotonic()))


def _wear(runtime: Runtime) -> Callable[[float], None]:
    """What tells once that the worker has served enough requests."""
    wear = runtime.application.wear
    most = wear.max_requests
    limit = math.inf if most is None else most * (1 - wear.jitter * random.random())
    lane = runtime.board.lanes[0]

    def look(_now: float) -> None:
        nonlocal limit
        if lane.requests >= limit:
            limit = math.inf
            runtime.worn(f"max-requests {most}")

    return look


class _Drain:
    """Waits for the stop, and then until nobody is left or the time is over."""

    def __init__(self, runtime: Runtime, state: State, acceptor: Acceptor) -> None:
        self._runtime = runtime
        self._state = state
        self._acceptor = acceptor
        self._changed = asyncio.Event()
        self._begun_at = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # A signal's handler runs between two callbacks (uvloop and asyncio both wake up for it),
        # and makes this descriptor readable.
        loop.add_reader(self._runtime.wake_fd, self._woken)
        self._state.on_tick.append(lambda _now: self._changed.set())
        while not self._is_over():
            await self._changed.wait()
            self._changed.clear()
        loop.remove_reader(self._runtime.wake_fd)
        for task in (tasks := tuple(self._state.tasks)):
            task.cancel()
        for guest in tuple(self._state.guests):
            guest.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=self._left() / 2)

    def _left(self) -> float:
        return max(0.0, self._runtime.drain_until - clock.monotonic())

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

    def _is_over(self) -> bool:
        if self._state.stopping is Stopping.NO:
            return False
        if self._state.is_empty and self._acceptor.is_idle:
            return True
        left = self._left()
        whole = self._runtime.drain_until - self._begun_at
        if left <= min(_MAX_TELL_SECONDS, whole * _TELL_PART):
            for guest in tuple(self._state.guests):
                guest.dismiss()
        return left <= min(_MAX_CUT_SECONDS, whole * _CUT_PART)


def configure(front: Front) -> Config:
    """uvicorn's, with everything off that is ours: lifespan, proxies, logs, its own headers."""
    config = Config(
        front,
        http=HttpConnection,
        ws="none",  # each connection makes its own
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        interface="asgi3",
        workers=1,
    )
    config.load()
    return config
