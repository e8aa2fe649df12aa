"""`sengu work`: what shells complete."""

from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete

from sengu.cli.main import sengu

CLASSES = """\
import sengu
from sengu import Worker
class Consumer(sengu.Worker): ...
class Other(Worker): ...
class Special(Consumer): ...
class _Private(Worker): ...
class Shared(sengu.Server): ...
class Plain: ...
class Odd(make()): ...
app = make()
"""


@pytest.fixture
def place(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with classes in it."""
    (free_path / "package").mkdir()
    (free_path / "jobs.py").write_text(CLASSES)
    (free_path / "my-script.py").write_text("import sengu\nclass Mine(sengu.Worker): ...\n")
    (free_path / "broken.py").write_text("x(\n")
    (free_path / "package" / "__init__.py").write_text("")
    (free_path / "package" / "tasks.py").write_text("class Task(sengu.Worker): ...\n")
    monkeypatch.chdir(free_path)
    return free_path


def completed(begun: str, *words: str) -> list[CompletionItem]:
    return ShellComplete(sengu, {}, "sengu", "_SENGU_COMPLETE").get_completions([*words], begun)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("jobs:", ["jobs:Consumer", "jobs:Other", "jobs:Special"]),
        ("jobs.py:C", ["jobs.py:Consumer"]),
        (
            "jobs",
            [
                f"{place}:{name}"
                for place in ("jobs", "jobs.py")
                for name in ("Consumer", "Other", "Special")
            ],
        ),
        ("my", ["my-script.py:Mine"]),
        ("pack", ["package.tasks:Task"]),
        ("bro", ["broken", "broken.py"]),
        ("nothing", []),
    ],
)
def test_shells_complete_worker_classes_of_modules_and_scripts(
    begun: str, found: list[str]
) -> None:
    assert [item.value for item in completed(begun, "work")] == found


@pytest.mark.usefixtures("place")
def test_modules_are_looked_for_where_dir_says_and_scripts_here() -> None:
    assert [item.value for item in completed("", "work", "--dir", "package")] == [
        *("tasks:Task", "jobs.py:Consumer", "jobs.py:Other", "jobs.py:Special"),
        "my-script.py:Mine",
    ]


@pytest.mark.parametrize(("words", "begun"), [(("work",), "./jo"), (("work", "--config"), "jo")])
def test_shells_complete_files(words: tuple[str, ...], begun: str) -> None:
    assert [(item.type, item.value) for item in completed(begun, *words)] == [("file", begun)]


@pytest.mark.parametrize("verb", ["start", "doctor"])
def test_shells_complete_engines(verb: str) -> None:
    assert [item.value for item in completed("", verb, "--engine")] == ["podman", "docker"]
