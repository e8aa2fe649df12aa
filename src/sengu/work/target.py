"""From `module:Class` or `path/script.py:Class` to a worker class, or a sentence on what is wrong.

Runs in the fork server, or in the foreground for `embedded`, where the user's code runs. Imported
by `engine` and `source`.
"""

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType
from typing import Any

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
    module = _script(place) if place.endswith(".py") else _module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{place} has no {part}; {_hint(part, found)}")
        found = getattr(found, part)
    return module, found


def find_class(text: str, base: type) -> tuple[ModuleType, Any]:
    """The module, and a subclass of `base` that has that name in it. Raises LoadError."""
    module, found = find(text)
    if not isinstance(found, type) or not issubclass(found, base):
        raise LoadError(
            f"{text} is no subclass of sengu.{base.__name__}; write `class "
            f"{text.rpartition(':')[2]}(sengu.{base.__name__}):`"
        )
    return module, found


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
