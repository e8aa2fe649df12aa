"""`sengu serve`: bad input, what is executed, and what shells complete."""

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sengu.cli.main import run
from sengu.cli.targets import find_targets
from sengu.config.settings.serve import SETTINGS
from sengu.model.web import WebOptions
from sengu.supervisor import __main__ as supervisor
from tests.unit.support_executed import Executed, execute

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(free_path)
    return free_path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Executed]:
    """Runs `sengu serve` up to where it would execute the supervisor."""
    return lambda *args: execute(monkeypatch, "serve", *args)


def test_serve_executes_the_supervisor_in_this_process(serve: Callable[..., Executed]) -> None:
    executed = serve("myapp:app", "-w", "4", "--listen", "8000")
    assert executed.arguments[:4] == [sys.executable, "-I", "-S", supervisor.__file__]
    boot = executed.boot
    assert boot.service.workers == 4
    assert boot.service.command == ("myapp:app",)
    assert boot.service.application is not None
    assert boot.service.application.engine == "sengu.http.engine"
    assert [spec.key for spec in boot.sockets.listeners] == ["8000"]


@pytest.mark.parametrize(
    "args",
    [
        ["myapp:app", "--threads", "8", "--reload"],
        ["--threads", "8", "myapp:app", "--reload"],
        ["--threads=8", "--reload", "myapp:app"],
        ["--threads=8", "--reload", "--", "myapp:app"],
    ],
)
def test_options_may_stand_before_and_after_the_application(
    serve: Callable[..., Executed], args: list[str]
) -> None:
    application = serve(*args).boot.service.application
    assert application is not None
    assert application.target == "myapp:app"
    options = msgspec.json.decode(application.options, type=WebOptions)
    assert (options.threads, options.debug) == (8, True)


def test_the_application_is_not_imported_to_start(
    serve: Callable[..., Executed], place: Path
) -> None:
    (place / "myapp.py").write_text("raise SystemExit(9)\n")
    serve("myapp:app")
    assert "myapp" not in sys.modules


BAD_INPUT = [
    ([], "add it: sengu serve MODULE:NAME"),
    (["myapp.py"], "write myapp:app"),
    (["myapp:app", "x"], "unexpected extra argument"),
    (["myapp:app", "--listen", "x"], "write one of: 8000"),
    (["myapp:app", "--port", "80"], "there is no option --port"),
    (["myapp:app", "--thread", "8"], "did you mean --threads "),
    (["myapp:app", "--workers", "0"], "--workers '0'"),
    (["myapp:app", "-w", "0"], "--workers '0'"),
    (["myapp:app", "--tls-key", "x"], "add --tls-cert"),
    (["myapp:app", "--daemonize"], "add --log-file"),
    (["myapp:app", "--listen"], "requires an argument"),
]


@pytest.mark.parametrize(("args", "hint"), BAD_INPUT, ids=[" ".join(row[0]) for row in BAD_INPUT])
def test_bad_input_gets_one_line_and_exit_code_2(
    args: list[str], hint: str, capfd: Capture
) -> None:
    assert run(["serve", *args]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sengu: error: ")
    assert hint in line


def test_help_has_every_option_with_its_group_in_80_columns(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["serve", "--help"]) == 0
    out = capfd.readouterr().out
    assert [s.name for s in SETTINGS if f"{s.flag} {s.placeholder}".rstrip() not in out] == []
    assert [s.group for s in SETTINGS if f"\n{s.group.value}:\n" not in out] == []
    assert [line for line in out.splitlines() if len(line) > 80] == []


APPLICATIONS = """\
import flask
LIMIT = int("1")
_private = flask.Flask(__name__)
app = flask.Flask(__name__)
other: object = flask.Flask(__name__)
def wsgi(environ, start_response): ...
async def asgi(scope, receive, send): ...
def helper(a, b): ...
async def task(a): ...
"""


@pytest.fixture
def modules(place: Path) -> Path:
    (place / "site" / "deep" / "deeper").mkdir(parents=True)
    (place / "folder").mkdir()
    (place / "myapp.py").write_text(APPLICATIONS)
    (place / "broken.py").write_text("x(\n")
    (place / "my-script.py").write_text("app = make()\n")
    (place / "folder" / "stray.py").write_text("app = make()\n")
    for package in ("site", "site/deep", "site/deep/deeper"):
        (place / package / "__init__.py").write_text("app = make()\n")
    (place / "site" / "wsgi.py").write_text("application = get_wsgi_application()\n")
    return place


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("my", ["myapp:app", "myapp:other", "myapp:wsgi", "myapp:asgi"]),
        ("myapp:a", ["myapp:app", "myapp:asgi"]),
        ("site", ["site:app", "site.deep:app", "site.wsgi:application"]),
        ("site.w", ["site.wsgi:application"]),
        ("bro", ["broken"]),
        ("nothing", []),
    ],
)
def test_shells_complete_what_looks_like_an_application(
    modules: Path, begun: str, found: list[str]
) -> None:
    assert find_targets(str(modules), begun) == found


def test_there_is_nothing_to_complete_where_there_is_no_directory(place: Path) -> None:
    assert find_targets(str(place / "nowhere"), "") == []


@pytest.mark.parametrize("options", [[], ["--dir", "site"]])
def test_shells_look_into_the_directory_that_is_given(
    modules: Path, options: list[str], capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sengu", "serve", *options, "ws" if options else "site.w"]
    monkeypatch.setenv("_SENGU_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        run([])
    expected = "wsgi:application" if options else "site.wsgi:application"
    assert capfd.readouterr().out.split() == [f"plain,{expected}"]
