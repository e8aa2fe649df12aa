"""A memory file whose content is swapped: readers see all of one content, whoever dies when."""

import itertools
import os
import signal
import time
from collections.abc import Iterator

import pytest

from sengu.posix import prctl
from sengu.posix.swap_file import SwapFile, make_swap_file
from tests.kernel.children import Child, in_child
from tests.support import needs_root

NOBODY = 65534
PATIENCE_SECONDS = 20.0


@pytest.fixture
def swap_file() -> Iterator[SwapFile]:
    made = make_swap_file("test")
    yield made
    os.close(made.fd)


def test_nothing_was_written_at_first(swap_file: SwapFile) -> None:
    assert swap_file.read() == (0, b"")


def test_what_was_written_last_is_read_and_each_content_has_a_later_version(
    swap_file: SwapFile,
) -> None:
    for version, content in enumerate((b"one", b"", b"three" * 1000, b"4", b"five" * 10), 1):
        assert swap_file.write(content)
        assert swap_file.read() == (version, content)
        assert SwapFile(swap_file.fd).read() == (version, content)


def test_the_same_content_is_no_new_version(swap_file: SwapFile) -> None:
    swap_file.write(b"same")
    assert not swap_file.write(b"same")
    assert swap_file.read() == (1, b"same")


def test_it_does_not_grow_with_each_version(swap_file: SwapFile) -> None:
    for number in range(200):
        swap_file.write(str(number).encode() * 100)
    assert os.fstat(swap_file.fd).st_size < 5 * 300


def test_another_user_who_may_read_it_cannot_write_it(swap_file: SwapFile) -> None:
    needs_root()
    swap_file.write(b"one")

    def body() -> None:
        reader = swap_file.open_to_read()
        os.close(swap_file.fd)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl.set_dumpable(True)  # so that /proc/self is its own, as after an exec
        assert SwapFile(reader).read() == (1, b"one")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(reader, b"x", 0)
        with pytest.raises(PermissionError):
            os.open(f"/proc/self/fd/{reader}", os.O_RDWR)

    in_child(body)


class _KilledError(Exception):
    """The writer dies here."""


def test_a_writer_that_is_killed_after_any_byte_leaves_one_content_or_the_other(
    monkeypatch: pytest.MonkeyPatch, swap_file: SwapFile
) -> None:
    real, left = os.pwrite, 0

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise _KilledError
        left -= 1
        return real(fd, data[:1], offset)  # one byte at a time

    swap_file.write(b"the old one")
    swap_file.write(b"old")
    monkeypatch.setattr(os, "pwrite", pwrite)
    for life in range(200):
        left = life
        new = b"new %d" % life
        before = swap_file.read()
        try:
            swap_file.write(new)
        except _KilledError:
            assert swap_file.read() == before
        else:
            assert swap_file.read() == (before[0] + 1, new)
            break
    else:
        pytest.fail("it never came to its end")
    assert life > 20


def test_a_reader_beside_a_writer_that_is_killed_in_the_midst_never_sees_half(
    swap_file: SwapFile,
) -> None:
    def content(number: int) -> bytes:
        return b"%d " % number * (200 + number % 7 * 900)

    def write(_child: Child) -> None:
        for number in itertools.count(1):
            swap_file.write(content(number))

    def look() -> bool:
        version, found = swap_file.read()
        if version == 0:  # overtaken twice
            return False
        first, _, _ = found.partition(b" ")
        assert found == content(int(first))
        seen.add(first)
        return True

    swap_file.write(content(0))
    seen: set[bytes] = set()
    end = time.monotonic() + PATIENCE_SECONDS
    with Child(write) as writer:
        for count in itertools.count(1):
            look()
            if count >= 2500 and len(seen) > 2:
                break
            assert time.monotonic() < end, seen
        os.kill(writer.pid, signal.SIGKILL)
        writer.reap()
    assert all(look() for _ in range(500))
