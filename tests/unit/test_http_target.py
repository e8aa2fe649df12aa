"""From `module:attribute` to an application: what is found, and the sentence when nothing is."""

import functools
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sengu.http import target
from sengu.model.web import Interface
from sengu.worker.engine import LoadError

SOURCE = """
import functools

def app(environ, start_response):
    return []

class Holder:
    inner = app

def create_app():
    return app

def broken_factory():
    raise RuntimeError("no database")

def leaves():
    raise SystemExit(3)

async def coroutine_factory():
    return app

def with_option(debug=False):
    return app

value = 5
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to import from; what was imported is forgotten."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "site_one.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    "text",
    [
        "site_one:app",
        "site_one",
        "site_one:Holder.inner",
        "site_one:create_app()",
        "site_one:with_option()",
    ],
)
def test_it_is_found(text: str) -> None:
    found = target.find(text)
    assert found.application.__name__ == "app"
    assert found.module.__name__ == "site_one"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' names no application; write module:attribute"),
        ("site_one:", "names no application"),
        ("site_one:app(1)", "names no application"),
        ("site_two:app", "no module named site_two in {cwd} and in sys.path; did you mean"),
        ("far.away:app", "no module named far in {cwd} and in sys.path; start in the directory"),
        ("site_one.deep:app", "no module named site_one.deep"),
        ("site_one.py:app", "a module is named without .py: site_one"),
        ("site_one:ap", "site_one has no ap; did you mean app?"),
        ("site_one:zzz", "site_one has no zzz; it has app, Holder, create_app"),
        ("site_one:Holder.outer", "Holder.outer has no outer"),
        ("site_one:value", "site_one:value is no application: a int can not be called"),
        ("site_one:create_app", "it makes an application: write site_one:create_app()"),
        ("site_one:value()", "a int can not be called; leave out the ()"),
        ("site_one:broken_factory()", "broken_factory() failed: RuntimeError: no database"),
        ("site_one:leaves()", "site_one:leaves() failed: SystemExit: 3"),
        ("site_one:coroutine_factory()", "is a coroutine function; a factory is an ordinary one"),
        ("os:", "names no application"),
    ],
)  # fmt: skip
def test_it_is_not_found_and_the_next_step_is_said(text: str, problem: str, modules: Path) -> None:
    with pytest.raises(LoadError) as caught:
        target.find(text)
    assert problem.format(cwd=modules) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "problem", "details"),
    [
        (
            "import missing_thing\n",
            "ModuleNotFoundError: No module named 'missing_thing'",
            "line 1",
        ),
        ("x = (\n", "SyntaxError: '(' was never closed", "x = ("),
        ("1 / 0\n", "ZeroDivisionError: division by zero", "1 / 0"),
        ("raise SystemExit(2)\n", "SystemExit: 2", "raise SystemExit"),
    ],
)
def test_a_mistake_of_the_application_is_shown_as_its_traceback(
    source: str, problem: str, details: str, modules: Path
) -> None:
    (modules / "site_bad.py").write_text(source)
    with pytest.raises(LoadError) as caught:
        target.find("site_bad:app")
    assert str(caught.value) == f"cannot import site_bad: {problem}" or problem in str(caught.value)
    assert details in caught.value.details
    assert "sengu" not in caught.value.details
    assert "importlib" not in caught.value.details


def test_a_failing_factory_shows_its_own_frames_only() -> None:
    with pytest.raises(LoadError) as caught:
        target.find("site_one:broken_factory()")
    assert 'raise RuntimeError("no database")' in caught.value.details
    assert "target.py" not in caught.value.details


def test_a_module_without_the_usual_names_is_asked_for_one(modules: Path) -> None:
    (modules / "site_three.py").write_text("def make_app():\n    return None\n")
    with pytest.raises(
        LoadError, match=r"neither app nor application; name it: site_three:make_app\(\)"
    ):
        target.find("site_three")
    (modules / "site_four.py").write_text("def application(environ, start_response): ...\n")
    assert target.find("site_four").application.__name__ == "application"


def wsgi(_environ: Any, _start_response: Any) -> Any: ...
def wsgi_any(*_arguments: Any) -> Any: ...
def wsgi_more(_environ: Any, _start_response: Any, _extra: int = 1) -> Any: ...
async def asgi(_scope: Any, _receive: Any, _send: Any) -> None: ...
def asgi_plain(_scope: Any, _receive: Any, _send: Any) -> Any: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class WsgiClass:
    """As PEP 3333 shows one: its instances are iterables."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsgiClass:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def __await__(self) -> Any: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...
    async def __call__(self, receive: Any, send: Any) -> None: ...


def asgi_2_function(scope: Any) -> Any: ...


def wrapped(application: Callable[..., Awaitable[None]]) -> Any:
    @functools.wraps(application)
    async def wrapper(*arguments: Any) -> None:
        await application(*arguments)

    return wrapper


@pytest.mark.parametrize(
    ("application", "interface"),
    [
        (wsgi, Interface.WSGI),
        (wsgi_any, Interface.WSGI),
        (wsgi_more, Interface.WSGI),
        (WsgiObject(), Interface.WSGI),
        (WsgiObject().__call__, Interface.WSGI),
        (WsgiClass, Interface.WSGI),
        (functools.partial(wsgi_more, _extra=2), Interface.WSGI),
        (functools.partial(wsgi), Interface.WSGI),
        (print, Interface.WSGI),
        (asgi, Interface.ASGI),
        (asgi_plain, Interface.ASGI),
        (AsgiObject(), Interface.ASGI),
        (AsgiObject().__call__, Interface.ASGI),
        (AsgiClass, Interface.ASGI),
        (wrapped(asgi), Interface.ASGI),
        (functools.partial(asgi), Interface.ASGI),
        (functools.partial(AsgiObject()), Interface.ASGI),
    ],
)
def test_the_interface_is_told_by_how_it_is_called(application: Any, interface: Interface) -> None:
    assert target.interface_of(application, Interface.AUTO, "m:app") is interface


@pytest.mark.parametrize("application", [Asgi2, asgi_2_function])
def test_asgi_2_is_refused_with_the_next_step(application: Any) -> None:
    with pytest.raises(LoadError, match=r"m:app speaks ASGI 2.*guarantee_single_callable"):
        target.interface_of(application, Interface.AUTO, "m:app")


def test_what_is_asked_for_is_not_questioned() -> None:
    assert target.interface_of(asgi, Interface.WSGI, "m:app") is Interface.WSGI
    assert target.interface_of(wsgi, Interface.ASGI, "m:app") is Interface.ASGI
