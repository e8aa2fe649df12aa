"""The control socket's file: made although others can touch its directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.control.bind import open_control
from sengu.control.listener import ControlListener
from sengu.posix.loop import Loop
from tests.kernel.children import nothing_left_open


@pytest.fixture
def loop() -> Iterator[Loop]:
    with nothing_left_open(), closing(Loop()) as loop:
        yield loop


def test_a_stranger_who_locks_a_shared_directory_holds_nobody_up(
    loop: Loop, free_path: Path
) -> None:
    free_path.chmod(0o777)
    directory = os.open(free_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    path = str(free_path / "control.sock")
    control = ControlListener(loop, open_control(path, "web"), path, "web")
    assert (free_path / "control.sock").is_socket()
    control.close()
    os.close(directory)
