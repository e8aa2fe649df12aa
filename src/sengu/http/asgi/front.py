"""The application as uvicorn's protocols see it: the user's, with what sengu adds to each call.

Made by `lifecycle` in the worker.
"""

import asyncio
import logging

from sengu.http.access_log import Log
from sengu.http.asgi.hand import Hand, Request
from sengu.http.asgi.layers import below, explained, logged, trusting
from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.http.health import Health
from sengu.http.proxy import Trust
from sengu.model.web import WebOptions
from sengu.posix import clock
from sengu.worker.runtime import Runtime


def wrap(app: App, options: WebOptions, log: Log | None) -> App:
    """Lay around the application what the options ask for; the log, which sees all, outermost."""
    if options.debug:
        app = explained(app)
    if root_path := options.root_path.rstrip("/"):
        app = below(app, root_path)
    if options.trusted_proxies:
        app = trusting(app, Trust(options.trusted_proxies))
    return app if log is None else logged(app, log)


class Front:
    """Tells the scoreboard which requests are in hand. Those for `health` are not."""

    def __init__(self, app: App, hand: Hand, runtime: Runtime, health: Health | None) -> None:
        self._app = app
        self._health = health
        self._hand = hand
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        health = self._health
        if health is not None and scope["path"] in health.paths and scope["type"] == "http":
            await health.asgi(send)
            return
        request = Request(scope, receive, send, clock.monotonic())
        self._hand.begin(request)
        if self._runtime.dozing:
            self._runtime.rouse()
        try:
            await self._app(scope, request.receive, request.send)
        except Exception as error:  # whatever the application raises; uvicorn reports it
            error.add_note(f"in answer to {request.head().decode('latin-1')}")
            if not request.is_done:
                raise
            # uvicorn would close a connection that nothing is wrong with, unannounced.
            logging.getLogger("uvicorn.error").error(
                "Exception in ASGI application", exc_info=error
            )
        except asyncio.CancelledError:
            # The drain's time is over. Where a request without an answer hangs is worth a
            # traceback; a stream has only gone on.
            if not request.has_answered:
                raise
        finally:
            self._hand.end(request)
