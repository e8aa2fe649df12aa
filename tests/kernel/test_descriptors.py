"""Which descriptors survive exec, and at which numbers."""

import os
import subprocess
from pathlib import Path

from sengu.posix import descriptors
from tests.kernel.children import in_child


def target(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def test_sealing_closes_everything_above_stderr_at_exec() -> None:
    def body() -> None:
        left_open = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(left_open, True)
        for fd in (0, 1, 2):
            os.dup2(left_open, fd, inheritable=True)
        descriptors.seal()
        assert not os.get_inheritable(left_open)
        assert all(os.get_inheritable(fd) for fd in (0, 1, 2))
        read_end, write_end = os.pipe()
        os.dup2(write_end, 1, inheritable=True)
        subprocess.run(["ls", "/proc/self/fd"], close_fds=False, check=True)
        assert os.read(read_end, 4096).split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own

    in_child(body)


def test_placing_may_swap_and_repeat_descriptors(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()

    def body() -> None:
        first = os.open(tmp_path / "a", os.O_RDONLY)
        second = os.open(tmp_path / "b", os.O_RDONLY)
        descriptors.place({first: second, second: first, 40: first, 41: first, 0: second})
        assert [target(fd)[-1] for fd in (first, second, 40, 41, 0)] == ["b", "a", "a", "a", "b"]
        assert all(os.get_inheritable(fd) for fd in (first, second, 40, 41, 0))

    in_child(body)


def test_placing_leaves_no_copy_that_survives_exec(tmp_path: Path) -> None:
    def body() -> None:
        descriptors.seal()
        source = os.open(os.devnull, os.O_RDONLY)
        descriptors.place({20: source})
        inheritable = {
            int(name)
            for name in os.listdir("/proc/self/fd")
            if Path(f"/proc/self/fd/{name}").exists() and os.get_inheritable(int(name))
        }
        assert inheritable <= {0, 1, 2, 20}
        assert 20 in inheritable

    in_child(body)


def test_placing_nothing_is_nothing() -> None:
    descriptors.place({})


def test_the_read_end_of_a_pipe_does_not_block_and_neither_end_survives_exec() -> None:
    read_end, write_end = descriptors.pipe()
    try:
        assert not os.get_blocking(read_end)
        assert os.get_blocking(write_end)
        assert not os.get_inheritable(read_end)
        assert not os.get_inheritable(write_end)
    finally:
        os.close(read_end)
        os.close(write_end)
