"""What a process writes down of itself, and where it leaves it."""

import asyncio
import faulthandler
import mmap
import os
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from sengu.dump import pages
from sengu.dump.ear import Ear
from sengu.dump.report import describe_memory, describe_process
from sengu.posix.procfs import memory_file_of, memory_of
from sengu.server.scoreboard import Scoreboard
from sengu.wire.scoreboard import SIZE_BYTES
from tests.kernel.shelf import Shelf


@contextmanager
def memory_file() -> Iterator[int]:
    with Shelf() as shelf:
        fd = Scoreboard(1, shelf).fd
        pages.open_pages(fd)
        yield fd
        os.close(fd)


class Proxy:
    """As applications have: it claims to be of another class, and whoever looks pays for it."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"it was asked for {name}")


def test_the_caller_is_shown_where_it_was() -> None:
    text = describe_process("somebody", None)
    assert text.startswith(f"sengu: where somebody is, pid {os.getpid()}:\n  memory: ")
    assert "test_the_caller_is_shown_where_it_was" in text
    assert text.endswith(f"sengu: that was pid {os.getpid()}\n")


def test_a_proxy_is_not_asked_what_it_is() -> None:
    proxy = [Proxy()]
    asyncio.run(asyncio.sleep(0))
    assert "objects: " in describe_process("somebody", None)
    assert len(proxy) == 1


def test_a_task_is_followed_through_generators() -> None:
    async def pages_of_a_book() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def read_it() -> None:
        async for _ in pages_of_a_book():
            pass

    async def look() -> str:
        task = asyncio.create_task(read_it(), name="reader")
        await asyncio.sleep(0)
        text = describe_process("somebody", None)
        task.cancel()
        return text

    reader = asyncio.run(look()).partition("  task reader:\n")[2]
    assert reader.index("in read_it\n") < reader.index("in wait\n")


def test_what_is_its_own_is_a_part_of_what_is_resident() -> None:
    memory = memory_of(os.getpid())
    assert memory is not None
    resident, own, share = memory
    assert 0 < own <= share <= resident


def test_one_that_is_gone_has_no_memory() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert describe_memory(pid) == "memory: may not be looked at"


def test_pages_of_several_processes_lie_behind_each_other() -> None:
    with memory_file() as fd:
        pages.write(fd, b"one\n")
        pid = os.fork()
        if pid == 0:
            pages.write(fd, "zwölf\n".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        found, end = pages.read(fd, SIZE_BYTES)
        assert found == {os.getpid(): "one\n", pid: "zwölf\n"}
        assert pages.read(fd, end) == ({}, end)


def test_pages_that_were_read_take_no_memory_and_the_file_gets_no_shorter() -> None:
    with memory_file() as fd:
        pages.write(fd, b"x" * 1_000_000)
        at = pages.clear(fd)
        assert os.fstat(fd).st_blocks * 512 <= 2 * mmap.PAGESIZE
        pages.write(fd, b"two\n")
        assert pages.read(fd, at)[0] == {os.getpid(): "two\n"}
        with pytest.raises(PermissionError):
            os.ftruncate(fd, SIZE_BYTES)


def test_a_file_that_was_made_longer_than_any_memory_is_cleared_of_nothing() -> None:
    with memory_file() as fd:
        os.ftruncate(fd, (1 << 63) - 1)
        assert pages.clear(fd) == (1 << 63) - 1
        pages.write(fd, b"there is no room for it")
        assert pages.read(fd, (1 << 63) - 1) == ({}, (1 << 63) - 1)


def test_a_page_that_is_being_written_is_not_there_yet() -> None:
    with memory_file() as fd:
        pages.write(fd, b"one\n")
        os.write(fd, struct.pack("=II", 1, 10) + b"half")
        found, end = pages.read(fd, SIZE_BYTES)
        assert found == {os.getpid(): "one\n"}
        os.write(fd, b" whole")
        assert pages.read(fd, end)[0] == {1: "half whole"}


def test_a_memory_file_of_any_length_is_not_read_to_its_end() -> None:
    fd = os.memfd_create("sengu-test-long")
    try:
        os.write(fd, b"stacks")
        os.ftruncate(fd, 1 << 45)
        content = memory_file_of(os.getpid(), "sengu-test-long")
        assert content is not None
        assert (content[:6], len(content)) == (b"stacks", 1 << 20)
    finally:
        os.close(fd)


def test_when_nobody_collects_pages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MOST_BYTES", 100_000)
    with memory_file() as fd:
        for _ in range(10):
            pages.write(fd, b"x" * 40_000)
        assert os.fstat(fd).st_size < SIZE_BYTES + 100_000


def test_pieces_are_whole_lines_and_all_of_them() -> None:
    text = b"".join(b"%d\n" % number * (number % 7) for number in range(5000)) + b"y" * 9000 + b"\n"
    found = list(pages.pieces(text))
    assert b"".join(found) == text
    assert all(piece.endswith(b"\n") for piece in found)
    assert all(len(piece) <= 4096 for piece in found[:-1])


def test_what_cannot_be_told_is_no_exception_of_the_application(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_who: str, _frame: object) -> str:
        raise RuntimeError("no")

    monkeypatch.setattr("sengu.dump.ear.describe_process", fail)
    previous = signal.getsignal(signal.SIGCONT)
    Ear("somebody", None).listen()
    try:
        signal.raise_signal(signal.SIGCONT)
    finally:
        faulthandler.unregister(signal.SIGCONT)
        signal.signal(signal.SIGCONT, previous)
    assert capfd.readouterr().err == "sengu: cannot tell where somebody is: RuntimeError('no')\n"
