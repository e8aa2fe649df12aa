"""The lifespan protocol of ASGI, from the server's side: startup before all, shutdown after all.

https://asgi.readthedocs.io/en/stable/specs/lifespan.html. Knows nothing of connections. Used by
`lifecycle` only.
"""

import asyncio
import enum
import sys
import traceback
from typing import Any

from sengu.http.asgi.types import App, Message
from sengu.worker.engine import LoadError


class _Phase(enum.Enum):
    """How far the application is. Only ever goes down this list."""

    CALLED = enum.auto()
    STARTING = enum.auto()  # it has taken lifespan.startup
    RUNNING = enum.auto()
    STOPPING = enum.auto()  # it has been given lifespan.shutdown
    OVER = enum.auto()


class _ForeignMessageError(Exception):
    """The application has sent what does not belong into a lifespan: it does not know of any."""


class Lifespan:
    """One application's lifespan. `state` is what it shares with the scopes of all requests."""

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._phase = _Phase.CALLED
        self._problem = ""  # what the application, or its exception, says of its failure
        self._changed = asyncio.Event()
        self._shutdown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Return when the application has started, or knows no lifespan. Raises LoadError."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._problem:
            raise LoadError("the application's lifespan startup failed", self._problem)

    async def shutdown(self, timeout_seconds: float) -> None:
        """Let the application clean up. What goes wrong is told on stderr, and changes nothing."""
        if self._task is None or self._phase is not _Phase.RUNNING:
            return
        self._phase = _Phase.STOPPING
        self._shutdown.set()
        await asyncio.wait([self._task], timeout=timeout_seconds)
        if not self._task.done():
            self._task.cancel()
            self._problem = "sengu: the application's lifespan shutdown did not end in time\n"
        if self._problem:
            sys.stderr.write(self._problem)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except _ForeignMessageError:
            pass
        except Exception:  # whatever the application raises
            # Refusing the scope is how an application says that it knows no lifespan. One that
            # has taken the message knows it, and has failed.
            if self._phase is _Phase.STARTING and not self._problem:
                self._problem = traceback.format_exc()
            elif self._phase in (_Phase.RUNNING, _Phase.STOPPING):
                traceback.print_exc()
        finally:
            self._phase = _Phase.OVER
            self._changed.set()

    async def _receive(self) -> Message:
        if self._phase is _Phase.CALLED:
            self._phase = _Phase.STARTING
            return {"type": "lifespan.startup"}
        await self._shutdown.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._phase = _Phase.RUNNING
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                said = str(message.get("message", "")).rstrip()
                self._problem = f"{said or 'the application does not say why'}\n"
            case "lifespan.shutdown.complete":
                self._phase = _Phase.OVER
            case kind:
                raise _ForeignMessageError(kind)
        self._changed.set()
