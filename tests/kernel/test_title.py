"""What ps shows of a process that has set its title."""

import subprocess
import sys

import pytest

from sengu.posix.title import ROOM

SET_AND_SHOW = """
import sys
from sengu.posix.title import Title
title = Title()
for text in sys.argv[1:-1]:
    title.set(text)
for name in ("cmdline", "environ"):
    with open(f"/proc/self/{name}", "rb") as stream:
        print(stream.read().strip(b"\\0").decode())
"""


def shown(*titles: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-c", SET_AND_SHOW, *titles, ROOM],
        env={"SECRET": "stays where it is"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return finished.stdout.splitlines()


@pytest.mark.parametrize("text", ["sengu: app: generation 3, 4 of 4 ready", "sengu: 遷宮"])
def test_ps_shows_the_title_and_the_environment_stays(text: str) -> None:
    assert shown(text) == [text, "SECRET=stays where it is"]


def test_a_shorter_title_leaves_nothing_of_the_longer_one() -> None:
    assert shown("a longer title than the next", "short")[0] == "short"


def test_a_title_is_cut_to_the_room_there_is() -> None:
    title, environment = shown("x" * 5000)
    assert set(title) == {"x"}
    assert environment == "SECRET=stays where it is"
