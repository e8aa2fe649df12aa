"""Which descriptors survive exec, and at which numbers."""

import os
import subprocess

from sengu.posix import descriptors
from tests.kernel.children import in_child


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


def test_who_has_the_read_end_can_make_another_write_end() -> None:
    read_end, write_end = descriptors.pipe()
    os.close(write_end)
    write_end = descriptors.write_end_of(read_end)
    try:
        os.write(write_end, b"again")
        assert os.read(read_end, 100) == b"again"
        assert os.get_blocking(write_end)
        assert not os.get_inheritable(write_end)
    finally:
        os.close(read_end)
        os.close(write_end)
