"""The port between fork server and engines: what a module must offer to be one.

An engine is a module with a function `prepare`. It is named in the application, so that the fork
server needs to know none of them.
"""

from typing import Any, NamedTuple, Protocol

from sengu.errors import SenguError
from sengu.model.application import Application
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime


class LoadError(SenguError):
    """The application can not be run. `details` is its traceback, when it is its own fault."""

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.details = details


class Loaded(Protocol):
    """An application that was imported. `module` is where it was found, for hooks."""

    module: object

    def begin(self, identity: Identity) -> None:
        """In the fork server, as the user that it runs as, before the first worker: `slot` is 0."""
        return

    def forked(self) -> None:
        """In the fork server, when the first workers have been forked."""
        return

    def end(self) -> None:
        """In the fork server, when no more workers will be forked."""
        return

    def run(self, runtime: Runtime) -> None:
        """In the worker: say `runtime.ready()`, serve, and return when it has drained."""
        ...


class Configuration(NamedTuple):
    """What workers find as their configuration, as JSON; those values of it that the server is to
    know, by name."""

    data: bytes
    settings: dict[str, Any]


class Prepared(Protocol):
    """Everything but the application itself."""

    def configure(self) -> Configuration | None:
        """Read the configuration, as the user that it is to run as: before the application is
        loaded, and whenever it may have changed. None: there is no such thing. Raises LoadError."""
        return None

    def load(self) -> Loaded:
        """Import the application, as the user that it is to run as. Raises LoadError."""


class Engine(Protocol):
    def prepare(self, application: Application) -> Prepared:
        """Open what only the user that started us may read, such as keys. Raises LoadError."""
