"""The engine for worker classes: what the fork server loads, and workers run.

Named in `Application.engine`; nobody imports it.
"""

import sys
import types
from types import ModuleType
from typing import Any

import msgspec

from sengu.model.application import Application
from sengu.model.work import WorkKind, WorkOptions
from sengu.work import kinds
from sengu.work.api import Server, StopEvent, Worker
from sengu.work.logs import make_logger
from sengu.work.source import evaluate
from sengu.work.target import find_class
from sengu.worker.engine import Loaded
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime


class Prepared:
    """The options."""

    def __init__(self, application: Application) -> None:
        self._options = msgspec.json.decode(application.options, type=WorkOptions)

    def load(self) -> "WorkerClass":
        """Import the class, read its configuration, open what is shared. Raises LoadError."""
        options = self._options
        sys.path[:0] = [path for path in options.paths if path not in sys.path]
        module, found = find_class(options.target, Worker)
        server = Server if options.server is None else find_class(options.server, Server)[1]
        return WorkerClass(options, module, found, server)


def prepare(application: Application) -> Prepared:
    """The engine's entry."""
    return Prepared(application)


class WorkerClass(Loaded):
    """A worker class, loaded, and the server that its workers share."""

    def __init__(
        self, options: WorkOptions, module: ModuleType, found: type[Worker], server: type[Server]
    ) -> None:
        """Raises LoadError."""
        self.module = module
        self._options = options
        self._class = found
        self._config = types.MappingProxyType(evaluate(options.config))
        self._server = server()

    def begin(self, identity: Identity) -> None:
        """In the fork server, before the first worker."""
        server = self._server
        server.service, server.generation = identity.service, identity.generation
        server.config = self._config
        server.log = make_logger(identity, self._options.log_level, self._options.log_form)
        server.before_run()

    def forked(self) -> None:
        """In the fork server, when the first workers have been forked."""
        self._server.after_start()

    def end(self) -> None:
        """In the fork server, when the generation has ended."""
        self._server.after_run()

    def run(self, runtime: Runtime) -> None:
        options = self._options
        count = options.threads if options.kind is WorkKind.THREAD else 1
        runtime.role = self._class.__name__ if count == 1 else f"{count} {self._class.__name__}"
        cast = kinds.Cast(runtime, lambda number: self._make(runtime, number), count)
        kinds.run(cast, options)

    def _make(self, runtime: Runtime, number: int) -> Any:
        identity = runtime.identity
        if self._options.kind is WorkKind.THREAD:
            identity = msgspec.structs.replace(identity, slot=number)
        worker = self._class()
        worker.service = identity.service
        worker.generation = identity.generation
        worker.slot = identity.slot
        worker.config = self._config
        worker.server = self._server
        worker.stopping = StopEvent()
        worker.log = make_logger(identity, self._options.log_level, self._options.log_form)
        return worker
