"""The engine for consumers: what the fork server loads, and workers run.

Named in `Application.engine`; nobody imports it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sengu.consumers.api import Found
from sengu.consumers.modules import consumers_of, select
from sengu.consumers.worker.process import Process
from sengu.errors import UsageError
from sengu.model.application import Application
from sengu.model.consume import ConsumeOptions
from sengu.work import engine as work
from sengu.work.target import import_module
from sengu.worker.engine import LoadError


class Prepared(work.Prepared):
    """As that of worker classes; what is imported is a module."""

    def __init__(self, application: Application) -> None:
        """Raises LoadError."""
        super().__init__(application)
        self._consume = msgspec.json.decode(application.options, type=ConsumeOptions)

    def _find(self) -> tuple[Any, type[Process]]:
        """The module, and a worker class with its consumers. Raises LoadError."""
        options = self._consume
        module = import_module(options.target)
        try:
            found = select(consumers_of(module), options.only)
        except UsageError as problem:
            raise LoadError(str(problem)) from problem
        return module, _process(found, options)


def prepare(application: Application) -> Prepared:
    """The engine's entry. Raises LoadError."""
    return Prepared(application)


def _process(found: Sequence[Found], options: ConsumeOptions) -> type[Process]:
    return type("Consumers", (Process,), {"consumers": found, "options": options})
