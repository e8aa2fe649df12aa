"""The watcher of `--reload`: which files it looks at, and that it asks for a deploy."""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.cli.watch import is_source, poll
from sengu.control import api
from tests.unit.fake_instance import FakeInstance

WAIT_SECONDS = 20.0
# Hides watchfiles, as where the extra is not installed.
WITHOUT_WATCHFILES = (
    "import sys; sys.modules['watchfiles'] = None; "
    "from sengu.cli import watch; sys.exit(watch.main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/app/myapp.py", True),
        ("/srv/app/deep/er/base.html", True),
        ("/srv/app/settings.toml", True),
        ("/srv/app/db.sqlite3", False),
        ("/srv/app/web.log", False),
        ("/srv/app/myapp.py~", False),
        ("/srv/app/.#myapp.py", False),
        ("/srv/app/#myapp.py#", False),
        ("/srv/app/.myapp.py.swp", False),
        ("/srv/app/4913", False),
        ("/srv/app/__pycache__/myapp.cpython-311.pyc", False),
        ("/srv/app/.git/hooks/x.py", False),
        ("/srv/app/.venv/lib/x.py", False),
        ("/srv/app/env/lib/python3.11/site-packages/x.py", False),
        ("/srv/app/node_modules/x.html", False),
        ("/srv/.hidden/myapp.py", True),
        ("/srv/application/myapp.py", False),
        ("/elsewhere/myapp.py", False),
    ],
)
def test_code_templates_and_configuration_are_source(path: str, expected: bool) -> None:
    assert is_source(path, ["/srv/app", "/srv/.hidden"]) is expected


def test_looking_finds_what_is_new_changed_or_gone(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("")
    (tmp_path / "gone.py").write_text("")
    (tmp_path / "dangling.py").symlink_to("nowhere")
    (tmp_path / ".git").mkdir()
    looks = poll([str(tmp_path)], seconds=0)
    assert list(next(looks)) == []
    (tmp_path / "new.py").write_text("")
    (tmp_path / "old.py").write_text("longer")
    (tmp_path / "gone.py").unlink()
    (tmp_path / ".git" / "x.py").write_text("")
    (tmp_path / "data.db").write_text("")
    assert list(next(looks)) == [f"{tmp_path}/{name}.py" for name in ("gone", "new", "old")]
    assert list(next(looks)) == []


class Watched:
    """A fake instance, a directory and the process that watches it."""

    def __init__(self, place: Path, program: tuple[str, ...]) -> None:
        self.directory = place / "app"
        self.directory.mkdir()
        self.asked = threading.Event()
        self.instance = FakeInstance(place / "x.sock")
        self.answer: api.ReloadAccepted | api.Problem = api.ReloadAccepted(5, 40)
        self.instance.reactions[api.RELOAD_PATH] = self._react
        self.process = subprocess.Popen(
            [sys.executable, *program, str(self.instance.path), str(self.directory)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
        )

    def _react(self, _body: bytes) -> api.ReloadAccepted | api.Problem:
        self.asked.set()
        return self.answer

    def change_until_asked(self) -> None:
        """Change a file again and again: when it is watched nobody says."""
        for number in itertools.count():
            (self.directory / "myapp.py").write_text(f"# {'x' * number}")
            if self.asked.wait(0.5):
                return
            assert number < 2 * WAIT_SECONDS
            assert self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        with contextlib.suppress(FileNotFoundError):
            self.instance.path.unlink()
        self.instance.close()


@pytest.fixture(
    params=[("-P", "-m", "sengu.cli.watch"), ("-P", "-c", WITHOUT_WATCHFILES)],
    ids=["watchfiles", "polling"],
)
def watched(free_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    watched = Watched(free_path, request.param)
    yield watched
    watched.close()


def test_a_change_is_a_deploy_and_the_end_of_the_instance_is_the_watchers(
    watched: Watched,
) -> None:
    watched.change_until_asked()
    assert watched.instance.asked[0].startswith('POST /v1/reload {"wait":false,')
    os.unlink(watched.instance.path)
    _, err = watched.process.communicate(timeout=WAIT_SECONDS)
    assert watched.process.returncode == 0
    assert "sengu: changed: myapp.py; deploying\n" in err


def test_a_refusal_is_told_and_does_not_end_it(watched: Watched) -> None:
    watched.answer = api.Problem("it is being stopped")
    watched.change_until_asked()
    watched.asked.clear()
    watched.change_until_asked()
    watched.process.kill()
    _, err = watched.process.communicate(timeout=WAIT_SECONDS)
    assert "sengu: not deployed: it is being stopped\n" in err
