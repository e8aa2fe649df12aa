"""A rule that cannot fail holds nothing: each is fed source that breaks it."""

import pytest

from tests.architecture import rules

DOC = '"""What lives here."""\n'


def broken(path: str, code: str) -> list[str]:
    return [str(violation) for violation in rules.check(f"sengu/{path}", DOC + code)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("model/spec.py", "from sengu.planner.plan import plan"),
        ("model/spec.py", "import sengu.posix.clock"),
        ("planner/plan.py", "from sengu.server import loop"),
        ("planner/plan.py", "from sengu import server"),
        ("wire/hello.py", "from sengu.posix import fds"),
        ("config/load.py", "from ..posix import fds"),
        ("config/__init__.py", "from ..posix import fds"),
        ("posix/pidfd.py", "from sengu.model.spec import ServiceSpec"),
        ("listeners/bind.py", "from sengu.server.loop import Loop"),
        ("server/loop.py", "from sengu.worker import api"),
        ("server/loop.py", "from sengu.control.client import Client"),
        ("server/loop.py", "from sengu.control import client"),
        ("server/loop.py", "def f():\n    from sengu.cli import main"),
        ("control/server.py", "from sengu.server.loop import Loop"),
        ("supervisor/main.py", "from sengu.errors import SenguError"),
        ("supervisor/main.py", "from sengu import __version__"),
        ("worker/runtime.py", "from sengu.http import wsgi"),
    ],
)
def test_an_import_against_the_table_is_found(path: str, code: str) -> None:
    (violation,) = broken(path, code)
    line = 1 + len(code.splitlines())
    assert violation.startswith(f"sengu/{path}:{line}: ")
    assert "may import" in violation


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("model/spec.py", "import enum, typing\nimport msgspec\nfrom sengu.errors import E"),
        ("model/spec.py", "from .ids import Slot\nfrom sengu import __version__"),
        ("planner/__init__.py", "from .plan import plan\nfrom ..model import events"),
        ("server/loop.py", "import os, time\nfrom sengu.control import api\nimport posix"),
        ("control/client.py", "import http.client\nfrom sengu.control.api import Status"),
        ("control/server.py", "from http import HTTPStatus"),
        ("cli/main.py", "import click\nfrom sengu.server import run"),
        ("__init__.py", "from sengu.worker import Worker"),
        ("posix/clock.py", "import time\nnow = time.monotonic()"),
        ("supervisor/main.py", "import time\nnow = time.monotonic()"),
        ("server/loop.py", "import clock\nnow = clock.monotonic()"),
    ],
)
def test_what_is_allowed_is_left_alone(path: str, code: str) -> None:
    assert broken(path, code) == []


@pytest.mark.parametrize(
    ("path", "code", "why"),
    [
        ("planner/plan.py", "import time", "pure"),
        ("planner/plan.py", "from os import path", "pure"),
        ("model/spec.py", "import os.path as p", "pure"),
        ("server/loop.py", "import logging.handlers", "memory"),
        ("control/server.py", "from http import client", "memory"),
        ("model/spec.py", "from dataclasses import dataclass", "memory"),
        ("server/loop.py", "import rich.table", "terminal"),
        ("control/client.py", "import click", "terminal"),
        ("supervisor/main.py", "import msgspec", "standard library"),
    ],
)
def test_a_foreign_import_against_the_rules_is_found(path: str, code: str, why: str) -> None:
    (violation,) = broken(path, code)
    assert violation.startswith(f"sengu/{path}:2: ")
    assert why in violation


def test_a_package_without_a_row_is_found() -> None:
    (violation,) = broken("metrics/page.py", "import os")
    assert "metrics.page has no row" in violation


@pytest.mark.parametrize(
    "code",
    [
        "import time\nnow = time.monotonic()",
        "import time as t\nnow = t.monotonic_ns()",
        "import os\nfrom time import monotonic",
    ],
)
def test_a_second_reader_of_the_monotonic_clock_is_found(code: str) -> None:
    (violation,) = broken("server/loop.py", code)
    assert violation.startswith("sengu/server/loop.py:3: only posix.clock")


@pytest.mark.parametrize(
    "handler",
    ["except:", "except Exception:", "except (OSError, BaseException):", "except Exception as e:"],
)
def test_a_broad_except_needs_a_reason_on_its_line(handler: str) -> None:
    code = "try:\n    pass\n{}\n    text = '# no comment'"
    (violation,) = broken("server/loop.py", code.format(handler))
    assert violation.startswith("sengu/server/loop.py:4: a broad except")
    assert broken("server/loop.py", code.format(f"{handler}  # user code may raise anything")) == []


def test_a_narrow_except_needs_no_reason() -> None:
    assert broken("server/loop.py", "try:\n    pass\nexcept (OSError, ValueError):\n    pass") == []


def test_a_long_module_is_found() -> None:
    at_limit = "\n" * (rules.MAX_MODULE_LINES - 1)
    assert broken("server/loop.py", at_limit) == []
    (violation,) = broken("server/loop.py", at_limit + "x = 1\n")
    assert "351 lines in a module" in violation


def test_the_supervisor_may_be_one_long_file_within_bounds() -> None:
    at_limit = "\n" * (rules.MAX_SUPERVISOR_LINES - 1)
    assert broken("supervisor/main.py", at_limit) == []
    assert len(broken("supervisor/main.py", at_limit + "x = 1\n")) == 1


def test_a_long_function_is_found() -> None:
    def source(lines: int) -> str:
        return "class C:\n    async def f(self):\n" + "        x = 1\n" * (lines - 1)

    assert broken("server/loop.py", source(rules.MAX_FUNCTION_LINES)) == []
    (violation,) = broken("server/loop.py", source(rules.MAX_FUNCTION_LINES + 1))
    assert violation == "sengu/server/loop.py:3: 61 lines in f(), at most 60"


@pytest.mark.parametrize("source", ["", "x = 1\n", "# a comment\n"])
def test_a_module_without_docstring_is_found(source: str) -> None:
    (violation,) = rules.check("sengu/planner/__init__.py", source)
    assert "docstring" in str(violation)


def test_a_module_named_after_nothing_is_found() -> None:
    (violation,) = broken("posix/utils.py", "")
    assert "name a module after what it holds" in violation


def test_the_report_names_file_line_and_rule() -> None:
    text = rules.report(rules.check("sengu/planner/plan.py", DOC + "import os\nimport time"))
    first, second = text.splitlines()
    assert first.startswith("src/sengu/planner/plan.py:2: planner imports os: ")
    assert second.startswith("src/sengu/planner/plan.py:3: planner imports time: ")
