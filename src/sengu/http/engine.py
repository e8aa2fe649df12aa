"""The engine for web applications: what the fork server loads, and workers run.

WSGI is served here; ASGI by `sengu.http.asgi`, which is imported when it is wanted: it needs
packages that not everybody has.
"""

import ssl
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sengu.http import target
from sengu.http.access_log import open_log
from sengu.http.drain import Drain
from sengu.http.exchange import traceback_page
from sengu.http.listeners import await_first_bytes
from sengu.http.loop import Loop
from sengu.http.site import Site
from sengu.http.tls import load_context
from sengu.model.application import Application
from sengu.model.web import Interface, WebOptions
from sengu.worker.engine import Loaded, LoadError
from sengu.worker.runtime import Runtime


class Prepared:
    """The options, and the key, which the application's user may not be able to read."""

    def __init__(self, application: Application) -> None:
        """Raises LoadError."""
        self._options = msgspec.json.decode(application.options, type=WebOptions)
        self._tls = load_context(self._options.tls) if self._options.tls is not None else None

    def load(self) -> Loaded:
        """Import the web application. Raises LoadError."""
        options = self._options
        try:
            found = target.find(options.target)
            interface = target.interface_of(found.application, options.interface, options.target)
        except LoadError as error:
            if not options.debug:
                raise
            return WsgiApp(broken(error), sys.modules[__name__], options, self._tls)
        if interface is Interface.ASGI:
            from sengu.http.asgi.engine import AsgiApp

            return AsgiApp(found.application, found.module, options, self._tls)
        return WsgiApp(found.application, found.module, options, self._tls)


def prepare(application: Application) -> Prepared:
    """The engine's entry. Raises LoadError."""
    return Prepared(application)


def broken(error: LoadError) -> Callable[..., Iterable[bytes]]:
    """For development: an application that says why the real one can not be imported."""
    text = error.details or str(error)
    print(text, file=sys.stderr, flush=True)
    page = traceback_page(str(error), text).encode()

    def show(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("500 Internal Server Error", [("Content-Type", "text/html; charset=utf-8")])
        return [page]

    return show


class WsgiApp(Loaded):
    """A WSGI application, loaded."""

    def __init__(
        self,
        application: Callable[..., Iterable[bytes]],
        module: object,
        options: WebOptions,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.module = module
        self._application = application
        self._options = options
        self._tls = tls

    def run(self, runtime: Runtime) -> None:
        await_first_bytes(runtime.listeners)
        log = open_log(self._options.access_log)
        if log is not None:
            runtime.on_reopen.append(log.reopen)
        site = Site(self._application, self._options, runtime, self._tls, log)
        loop = Loop(site, runtime)
        try:
            Drain(loop, site, runtime).run()
        finally:
            loop.close()
            if log is not None:
                log.close()
