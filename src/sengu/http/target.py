"""From `module:attribute` to an application and its interface, or a sentence about what is wrong.

Runs in the fork server, where the application's own code runs. Imported by `engine`.
"""

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from sengu.model.web import Interface
from sengu.worker.engine import LoadError

_DEFAULT_NAMES = ("app", "application")
_FACTORY_NAMES = ("create_app", "make_app", "create_application")
_TARGET = re.compile(r"(?P<module>[\w.]+)(?::(?P<attribute>[\w.]+)(?P<call>\(\))?)?")
_WSGI_ARGUMENTS = 2
_ASGI_ARGUMENTS = 3


class Target(NamedTuple):
    """What `module:attribute` names. `calls` is that it is a factory, to be called."""

    module: str
    attribute: str | None
    calls: bool


class Found(NamedTuple):
    """An application and the module that it was found in."""

    application: Callable[..., Any]
    module: ModuleType


def parse(text: str) -> Target:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise LoadError(
            f"{text!r} names no application; write module:attribute, such as myapp:app, or"
            " module:factory(), such as myapp:create_app()"
        )
    return Target(match["module"], match["attribute"], match["call"] is not None)


def find(text: str) -> Found:
    """Import the target. Raises LoadError."""
    target = parse(text)
    module = _import(target.module)
    found = _attribute(module, target)
    if target.calls:
        found = _call_factory(found, text)
    elif _is_factory(found):
        raise LoadError(f"{text} takes no arguments, so it makes an application: write {text}()")
    if not callable(found):
        kind = type(found).__name__
        raise LoadError(f"{text} is no application: a {kind} can not be called; name one that can")
    return Found(found, module)


def own_traceback(error: BaseException) -> str:
    """The traceback of `error` without the frames above the application's own."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _is_ours(frame: TracebackType) -> bool:
    name = str(frame.tb_frame.f_globals.get("__name__", ""))
    return name == "importlib" or name.startswith(("sengu.", "importlib."))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _fault(name, error) from error
        where = f"in {os.getcwd()} and in sys.path"
        raise LoadError(f"no module named {error.name} {where}; {_module_hint(name)}") from error
    except (Exception, SystemExit) as error:  # whatever the application's code raises
        raise _fault(name, error) from error


def _fault(name: str, error: BaseException) -> LoadError:
    summary = traceback.format_exception_only(error)[-1].strip()
    return LoadError(f"cannot import {name}: {summary}", own_traceback(error))


def _module_hint(name: str) -> str:
    path = name.removesuffix(".py").replace("/", ".")
    if name.endswith(".py"):
        return f"a module is named without .py: {path}"
    near = {entry.partition(".")[0] for entry in os.listdir() if entry.endswith(".py")}
    close = difflib.get_close_matches(name, near, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return "start in the directory that it is in, or name that with --dir"


def _attribute(module: ModuleType, target: Target) -> Any:
    if target.attribute is None:
        for name in _DEFAULT_NAMES:
            if hasattr(module, name):
                return getattr(module, name)
        raise LoadError(
            f"{module.__name__} has neither app nor application; name it:"
            f" {module.__name__}:{_likely_name(module)}"
        )
    found: Any = module
    for name in target.attribute.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, _public(found), n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {_some(found)}"
            owner = module.__name__ if found is module else target.attribute
            raise LoadError(f"{owner} has no {name}; {hint}")
        found = getattr(found, name)
    return found


def _public(owner: object) -> list[str]:
    return (
        [name for name in vars(owner) if not name.startswith("_")]
        if hasattr(owner, "__dict__")
        else []
    )


def _some(owner: object) -> str:
    names = [name for name in _public(owner) if callable(getattr(owner, name))]
    return ", ".join(names[:5]) or "nothing that can be called"


def _likely_name(module: ModuleType) -> str:
    for name in _FACTORY_NAMES:
        if callable(getattr(module, name, None)):
            return f"{name}()"
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and not inspect.isclass(value) and not name.startswith("_")
    ]
    return own[-1] if len(own) == 1 else "NAME"


def _call_factory(factory: Any, text: str) -> Any:
    if not callable(factory):
        raise LoadError(f"{text}: a {type(factory).__name__} can not be called; leave out the ()")
    try:
        made = factory()
    except (Exception, SystemExit) as error:  # whatever the application's code raises
        summary = traceback.format_exception_only(error)[-1].strip()
        raise LoadError(f"{text} failed: {summary}", own_traceback(error)) from error
    if inspect.iscoroutine(made):
        made.close()
        raise LoadError(f"{text} is a coroutine function; a factory is an ordinary one")
    return made


def _arguments(application: Any) -> int | None:
    """How many positional arguments it takes; None when that can not be told."""
    try:
        signature = inspect.signature(application)
        parameters = signature.parameters.values()
    except (TypeError, ValueError):  # a built-in, or what pretends to be callable
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    return sum(
        one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        and (one.default is one.empty or isinstance(application, functools.partial))
        for one in parameters
    )


def _is_factory(found: Any) -> bool:
    return inspect.isfunction(found) and _arguments(found) == 0 and not _has_variadic(found)


def _has_variadic(function: Any) -> bool:
    kinds = {one.kind for one in inspect.signature(function).parameters.values()}
    return bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def _unwrapped(application: Any) -> Any:
    while isinstance(application, functools.partial):
        application = application.func
    return inspect.unwrap(application) if inspect.isroutine(application) else application


def _is_coroutine(application: Any) -> bool:
    inner = _unwrapped(application)
    call = getattr(type(inner), "__call__", None)  # noqa: B004 - what it is, not whether
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


def interface_of(application: Any, wanted: Interface, text: str) -> Interface:
    """WSGI or ASGI, by `wanted` or by how it is called. Raises LoadError."""
    if wanted is not Interface.AUTO:
        return wanted
    if inspect.isclass(application):
        return _of_class(application, text)
    if _is_coroutine(application):
        return Interface.ASGI
    count = _arguments(application)
    if count == 1 and _is_double_callable(application):
        raise _asgi_2(text)
    return Interface.ASGI if count == _ASGI_ARGUMENTS else Interface.WSGI


def _of_class(application: type, text: str) -> Interface:
    """A class whose instances are iterables is a WSGI application: PEP 3333 shows one."""
    call = vars(application).get("__call__")
    if _arguments(application) == 1 and inspect.iscoroutinefunction(call):
        raise _asgi_2(text)
    if _arguments(application) == _ASGI_ARGUMENTS:
        return Interface.ASGI  # one that is awaited: `__await__`
    return Interface.WSGI


def _is_double_callable(application: Any) -> bool:
    return "scope" in inspect.signature(application).parameters


def _asgi_2(text: str) -> LoadError:
    return LoadError(
        f"{text} speaks ASGI 2, which takes only the scope; wrap it with"
        " asgiref.compatibility.guarantee_single_callable"
    )
