"""The port between fork server and engines: what a module must offer to be one.

An engine is a module with a function `load`. It is named in the application, so that the fork
server needs to know none of them.
"""

from typing import Protocol

from sengu.errors import SenguError
from sengu.model.application import Application
from sengu.worker.runtime import Runtime


class LoadError(SenguError):
    """The application can not be run. `details` is its traceback, when it is its own fault."""

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.details = details


class Loaded(Protocol):
    """An application that was imported. `module` is where it was found, for hooks."""

    module: object

    def run(self, runtime: Runtime) -> None:
        """In the worker: say `runtime.ready()`, serve, and return when it has drained."""


class Engine(Protocol):
    def load(self, application: Application) -> Loaded:
        """Import the application. Raises LoadError."""
