"""What the web engine makes of an ASGI application. Imported by `sengu.http.engine`.

Everything heavy is imported when an `AsgiApp` is made, in the fork server, so that the workers
share the memory; loops and threads are for the workers.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable

from sengu.http.access_log import open_log
from sengu.http.asgi.types import App
from sengu.http.listeners import await_first_bytes
from sengu.model.web import WebOptions
from sengu.worker.engine import Loaded, LoadError
from sengu.worker.runtime import Runtime


class AsgiApp(Loaded):
    """An ASGI application, loaded."""

    def __init__(
        self, app: App, module: object, options: WebOptions, tls: ssl.SSLContext | None
    ) -> None:
        """Raises LoadError."""
        try:
            from sengu.http.asgi.lifecycle import Lifecycle
        except ImportError as error:
            raise LoadError(
                f"{options.target} is an ASGI application, and what serves those is not there "
                f"({error}): pip install 'sengu[asgi]'"
            ) from error
        self.module = module
        self._new_loop = _loop_factory()
        self._options = options
        self._lifecycle = Lifecycle(app, options, tls)

    def run(self, runtime: Runtime) -> None:
        """In the worker: serve until it has drained. Raises LoadError when it can not begin."""
        _log_to_stderr()
        await_first_bytes(runtime.listeners)
        log = open_log(self._options.access_log)
        loop = self._new_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._lifecycle.run(runtime, log))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            if log is not None:
                log.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # it has no wheels for every platform
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _log_to_stderr() -> None:
    """What uvicorn's protocols report, the exceptions of the application above all, whatever the
    application makes of its own logging."""
    logger = logging.getLogger("uvicorn.error")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("sengu: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.disabled = False
