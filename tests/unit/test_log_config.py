"""Where output goes, by the options about it."""

from pathlib import Path

import pytest

from sengu.config.boot import Rotation
from sengu.config.log import log_target, log_waits, rotation_for
from sengu.config.setting import Values, parse_values
from sengu.config.settings import common
from sengu.errors import UsageError

FILE = "/var/log/app.log"


def values(**texts: str) -> Values:
    given = {name.replace("_", "-"): [text] for name, text in texts.items()}
    return parse_values(common.SETTINGS, given)


def rotation(target: str | None = FILE, **texts: str) -> Rotation | None:
    return rotation_for(values(**texts), target)


def test_without_an_option_about_it_nobody_rotates() -> None:
    assert rotation() is None
    assert rotation(None) is None
    assert not log_waits(values())


def test_size_and_age_are_enough_to_rotate() -> None:
    assert rotation(log_rotate_size="100m") == Rotation(100 << 20)
    assert rotation(log_rotate_age="1d") == Rotation(None, 86400.0)
    every = rotation(log_rotate_size="1k", log_rotate_age="1h", log_keep="2", log_compress="1")
    assert every == Rotation(1024, 3600.0, 2, compress=True)


def test_who_waits_has_a_writer_for_a_file_only() -> None:
    assert log_waits(values(log_full="wait"))
    assert rotation(log_full="wait") == Rotation()
    assert rotation(None, log_full="wait") is None
    assert rotation("| logger", log_full="wait") is None


@pytest.mark.parametrize(
    ("target", "texts", "way_out"),
    [
        (FILE, {"log_keep": "3"}, "--log-keep is about rotated files, and none is rotated; add"),
        (FILE, {"log_compress": "1"}, "add --log-rotate-size or --log-rotate-age"),
        (None, {"log_rotate_size": "1m"}, "output goes to standard error; name the file with"),
        (
            "| cat",
            {"log_rotate_age": "1h"},
            "--log-rotate-age rotates a file, and output goes to a",
        ),
        ("/dev/null", {"log_rotate_age": "1h"}, "is no file that can be rotated; name another"),
    ],
)
def test_what_can_not_be_rotated_is_refused(
    target: str | None, texts: dict[str, str], way_out: str
) -> None:
    with pytest.raises(UsageError, match=way_out.replace("|", r"\|")):
        rotation(target, **texts)


def test_the_file_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert log_target(values(log_file="log"), None) == str(tmp_path / "log")
