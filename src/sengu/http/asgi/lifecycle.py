"""The life of an ASGI worker: startup, ready, serve, drain, shutdown.

Runs in the event loop. Decides when; how is in the modules it imports. Used by `engine`.
"""

import asyncio
import math
import random
import ssl
from collections.abc import Callable

import uvicorn.lifespan.off  # noqa: F401, `Config.load` would import it in each worker
from uvicorn.config import Config

from sengu.http.access_log import Log
from sengu.http.asgi.acceptor import Acceptor
from sengu.http.asgi.connection import HttpConnection
from sengu.http.asgi.drain import Drain
from sengu.http.asgi.front import Front, wrap
from sengu.http.asgi.hand import Hand
from sengu.http.asgi.lifespan import Lifespan
from sengu.http.asgi.state import State
from sengu.http.asgi.types import App
from sengu.http.health import Health
from sengu.http.proxy import ProxyHeader
from sengu.model.web import WebOptions
from sengu.posix import clock
from sengu.worker.runtime import Runtime, Stopping

_REST_SECONDS = 0.5  # for what the application has left behind to take its end in


class Lifecycle:
    """Made in the fork server, run in each worker."""

    def __init__(self, app: App, options: WebOptions, tls: ssl.SSLContext | None) -> None:
        self._app = app
        self._options = options
        self._tls = tls

    async def run(self, runtime: Runtime, log: Log | None) -> None:
        """Serve until the runtime says stop, and return when all is drained. Raises LoadError."""
        lifespan = Lifespan(self._app)
        if not await _start(lifespan, runtime):
            return
        hand = Hand(runtime.board.lanes[0], runtime.application.request_timeout_seconds)
        state = State(self._options, runtime.board.lanes[0])
        state.on_tick += [hand.tick, _wear(runtime)]
        if log is not None:
            runtime.on_reopen.append(log.reopen)
        health = _health(self._options, runtime)
        config = configure(Front(wrap(self._app, self._options, log), hand, runtime, health))

        def make(header: ProxyHeader | None) -> asyncio.Protocol:
            connection = HttpConnection(config, state, lifespan.state)
            connection.proxy_header = header
            return connection

        acceptor = Acceptor(runtime.listeners, make, state, self._tls)
        state.on_left.append(acceptor.resume)
        # Who is gone before he had a protocol leaves room too.
        state.on_tick.append(lambda _now: acceptor.resume())
        acceptor.start()
        runtime.ready()
        await Drain(runtime, state, acceptor).run()
        await lifespan.shutdown(max(0.0, runtime.drain_until - clock.monotonic()))
        await _cancel_the_rest()


async def _start(lifespan: Lifespan, runtime: Runtime) -> bool:
    """False when the worker was told to stop before the application had started."""
    loop = asyncio.get_running_loop()
    startup = loop.create_task(lifespan.startup())

    def woken() -> None:
        runtime.calm()
        if runtime.stopping is not Stopping.NO:
            startup.cancel()

    loop.add_reader(runtime.wake_fd, woken)
    await asyncio.wait([startup])
    loop.remove_reader(runtime.wake_fd)
    if startup.cancelled():
        return False
    startup.result()
    return True


async def _cancel_the_rest() -> None:
    """End the tasks that the application has begun and not ended, as `asyncio.run` does."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=_REST_SECONDS)


def _health(options: WebOptions, runtime: Runtime) -> Health | None:
    path = options.health_path
    return None if path is None else Health(path, options.root_path.rstrip("/"), runtime)


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
