"""Loads what is to be run: engine, application, hooks. Imported by `forkserver.main`."""

import importlib
import threading
import traceback
from typing import NamedTuple, cast

from sengu.model.application import Application
from sengu.worker.engine import Engine, Loaded, LoadError, Prepared
from sengu.worker.hooks import Hooks


class Everything(NamedTuple):
    """An application and the hooks that go with it."""

    loaded: Loaded
    hooks: Hooks


def prepare(application: Application) -> Prepared:
    """Import the engine, part of sengu or of a package that extends it, and let it prepare.

    Raises LoadError.
    """
    try:
        engine = cast(Engine, importlib.import_module(application.engine))
    except ImportError as error:
        raise LoadError(f"cannot import the engine {application.engine}: {error}") from error
    return engine.prepare(application)


def load(application: Application, prepared: Prepared) -> Everything:
    """Import the application and its hooks. Raises LoadError."""
    loaded = prepared.load()
    return Everything(loaded, find_hooks(application, loaded.module))


def find_hooks(application: Application, module: object) -> Hooks:
    """The hooks of `--hooks`, else those of the application's own module. Raises LoadError."""
    if application.hooks is None:
        return Hooks(module)
    try:
        return Hooks(importlib.import_module(application.hooks))
    except Exception as error:  # whatever the user's module raises
        raise LoadError(
            f"cannot import --hooks {application.hooks}: {type(error).__name__}: {error}",
            traceback.format_exc(),
        ) from error


def thread_warnings(target: str) -> tuple[str, ...]:
    """A line for each thread that the application has started: none of them survives a fork."""
    return tuple(
        f"the thread {thread.name!r} was started when {target} was imported; it will not run in "
        "the workers: start it in the hook after_fork, or use --no-preload"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    )
