"""The engine for worker classes: what the fork server loads, and workers run.

Named in `Application.engine`; nobody imports it.
"""

import sys
import types
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import msgspec

from sengu.model.application import Application
from sengu.model.work import WorkKind, WorkOptions
from sengu.work import kinds, source
from sengu.work.api import Server, StopEvent, Worker
from sengu.work.configuration import Configuration, log_level, settings_of
from sengu.work.life import Tending
from sengu.work.logs import make_logger
from sengu.work.target import check_kind, find_class
from sengu.worker import engine as port
from sengu.worker.engine import Loaded
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime


class Prepared:
    """The options, and the configuration once it was read."""

    def __init__(self, application: Application) -> None:
        """Raises LoadError."""
        self._options = msgspec.json.decode(application.options, type=WorkOptions)
        self._config: dict[str, Any] | None = None
        source.prepare(self._options.config)

    def configure(self) -> port.Configuration:
        """Raises LoadError."""
        self._extend_path()
        options = self._options
        found = source.evaluate(options.config)
        if self._config is None:
            self._config = found
        settings = settings_of(found, options.settings)
        return port.Configuration(msgspec.json.encode(found), settings)

    def load(self) -> "WorkerClass":
        """Import the class; read its configuration, if that was not done. Raises LoadError."""
        options = self._options
        self._extend_path()
        config = source.evaluate(options.config) if self._config is None else self._config
        module, found = self._find()
        server = Server if options.server is None else find_class(options.server, Server)[1]
        return WorkerClass(options, module, (found, server), config)

    def _find(self) -> tuple[ModuleType, type[Worker]]:
        """The module, and the class in it. Raises LoadError."""
        options = self._options
        module, found = find_class(options.target, Worker)
        check_kind(found, options.kind, options.target)
        return module, found

    def _extend_path(self) -> None:
        sys.path[:0] = [path for path in self._options.paths if path not in sys.path]


def prepare(application: Application) -> Prepared:
    """The engine's entry. Raises LoadError."""
    return Prepared(application)


class WorkerClass(Loaded):
    """A worker class, loaded, and the server that its workers share."""

    def __init__(
        self,
        options: WorkOptions,
        module: ModuleType,
        found: tuple[type[Worker], type[Server]],
        config: Mapping[str, Any],
    ) -> None:
        self.module = module
        self._options = options
        self._class, server = found
        self._config = types.MappingProxyType(config)
        self._server = server()

    def begin(self, identity: Identity) -> None:
        """In the fork server, before the first worker."""
        server = self._server
        server.service, server.generation = identity.service, identity.generation
        server.config = self._config
        level = log_level(self._options, self._config)
        server.log = make_logger(identity, level, self._options.log_form)
        server.before_run()

    def forked(self) -> None:
        """In the fork server, when the first workers have been forked."""
        self._server.after_start()

    def end(self) -> None:
        """In the fork server, when the generation has ended."""
        self._server.after_run()

    def run(self, runtime: Runtime) -> None:
        # The server may have amended them since the class was loaded.
        options = msgspec.json.decode(runtime.application.options, type=WorkOptions)
        configuration = Configuration(runtime.configuration, self._config)
        count = options.threads if options.kind is WorkKind.THREAD else 1
        runtime.role = self._class.__name__ if count == 1 else f"{count} {self._class.__name__}"

        def make(number: int) -> Any:
            return self._make(runtime.identity, number, options, configuration.current)

        kinds.run(kinds.Cast(runtime, make, count, Tending(configuration, options)), options)

    def _make(
        self, identity: Identity, number: int, options: WorkOptions, config: Mapping[str, Any]
    ) -> Any:
        if options.kind is WorkKind.THREAD:
            identity = msgspec.structs.replace(identity, slot=number)
        worker = self._class()
        worker.service = identity.service
        worker.generation = identity.generation
        worker.slot = identity.slot
        worker.config = config
        worker.server = self._server
        worker.stopping = StopEvent()
        worker.log = make_logger(identity, log_level(options, config), options.log_form)
        return worker
