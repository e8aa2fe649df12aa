"""From `module:Class` or `path/script.py:Class` to a worker class, or a sentence on what is wrong.

Runs in the fork server, or in the foreground for `embedded`, where the user's code runs. Imported
by `engine`, `source` and the engine for consumers.
"""

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from sengu.model.work import WorkKind
from sengu.work.api import Worker
from sengu.worker.engine import LoadError

# A script is imported under this name, so that what it does when it is run is not done.
SCRIPT = "__sengu_main__"


def find(text: str) -> tuple[ModuleType, Any]:
    """The module, and what has that name in it. Raises LoadError."""
    place, colon, name = text.rpartition(":")
    if not colon or not name:
        raise LoadError(
            f"{text!r} names no class; write module:Class, such as myapp.jobs:Consumer, or "
            "script.py:Class"
        )
    module = import_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{place} has no {part}; {_hint(part, found)}")
        found = getattr(found, part)
    return module, found


def import_module(place: str) -> ModuleType:
    """A module by its name, or a script by its path. Raises LoadError."""
    return _script(place) if place.endswith(".py") else _module(place)


def find_class(text: str, base: type) -> tuple[ModuleType, Any]:
    """The module, and a subclass of `base` that has that name in it. Raises LoadError."""
    module, found = find(text)
    if not isinstance(found, type) or not issubclass(found, base):
        raise LoadError(
            f"{text} is no subclass of sengu.{base.__name__}; write `class "
            f"{text.rpartition(':')[2]}(sengu.{base.__name__}):`"
        )
    return module, found


def check_kind(found: type[Worker], kind: WorkKind, text: str) -> None:
    """Refuse a class that cannot run as that kind: it would be ready, and then not work.

    Raises LoadError.
    """
    if kind is WorkKind.SPAWN:
        if found.command is Worker.command:
            raise LoadError(f"{text} has no command(), which --kind spawn runs; write one")
        return
    if found.run is Worker.run:
        hint = "; add --kind spawn, as it has a command()"
        also = hint if found.command is not Worker.command else "; write one"
        raise LoadError(f"{text} has no run(){also}")
    is_coroutine = inspect.iscoroutinefunction(found.run)
    if is_coroutine and kind in {WorkKind.PROCESS, WorkKind.THREAD}:
        raise LoadError(f"{text} has an `async def run`: add --kind async, or write `def run`")


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _fault(name, error) from error
        raise LoadError(
            f"no module named {error.name} in {os.getcwd()} and in sys.path; start in the "
            "directory that it is in, or name that with --dir"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise _fault(name, error) from error


def _script(path: str) -> ModuleType:
    if SCRIPT in sys.modules:
        return sys.modules[SCRIPT]
    spec = importlib.util.spec_from_file_location(SCRIPT, path)
    if spec is None or spec.loader is None or not os.path.exists(path):
        raise LoadError(f"there is no script {path}; check the path")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    module = sys.modules[SCRIPT] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        del sys.modules[SCRIPT]
        raise _fault(path, error) from error
    return module


def _fault(name: str, error: BaseException) -> LoadError:
    summary = traceback.format_exception_only(error)[-1].strip()
    return LoadError(f"cannot import {name}: {summary}", traceback.format_exc())


def _hint(name: str, found: object) -> str:
    classes = [one for one in dir(found) if not one.startswith("_")]
    close = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean {close[0]}?" if close else "check the name"
