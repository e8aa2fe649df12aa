"""Obituaries, from the server that writes them to the worker that reads them."""

import mmap
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from sengu.model import events as ev
from sengu.model.observed import Observed, Phase, Worker
from sengu.posix import packets
from sengu.posix.store import Held, Store
from sengu.posix.swap_file import SwapFile, make_swap_file
from sengu.server.link import Kin
from sengu.server.obituaries import Obituaries
from sengu.wire import forkserver as orders
from sengu.wire import supervisor as wire
from sengu.wire.obituaries import Obituary, decode, encode
from sengu.wire.scoreboard import HEARTBEAT, LINE_BYTES, SIZE_BYTES, Line
from sengu.worker.board import Board
from tests.kernel.children import Child, in_child, run_until
from tests.kernel.nursery import Nursery, read_line
from tests.kernel.prompter import Prompter
from tests.kernel.shelf import Shelf
from tests.kernel.test_adopt import Ears, make_parts

SEGV = "signal SEGV"


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf() as made:
        yield made


class Registry:
    """A server's obituaries, and a worker with two lines."""

    def __init__(self, shelf: Shelf, *workers: Worker) -> None:
        self.observed = Observed(2, workers={worker.id: worker for worker in workers})
        self.obituaries = Obituaries(shelf, lambda: self.observed)
        self.board = Board(memoryview(bytearray(2 * LINE_BYTES)), 0, 2)

    def die(self, worker: int = 1, how: str = SEGV, *, was_asked: bool = False) -> None:
        lines = [lane.read() for lane in self.board.lanes]
        self.obituaries.write(ev.WorkerExited(worker, how, "words"), lines, was_asked=was_asked)

    def written(self) -> list[tuple[int, tuple[str, ...], str, str]]:
        found = decode(self.obituaries.file.read()[1])
        return [(one.worker, one.in_hand, one.how, one.last_words) for one in found]


def test_who_dies_with_something_in_hand_is_noted_with_all_of_it(shelf: Shelf) -> None:
    registry = Registry(shelf)
    for number, lane in enumerate(registry.board.lanes):
        lane.begin(1.0, b"job %d" % number)
    registry.die()
    assert registry.written() == [(1, ("job 0", "job 1"), SEGV, "words")]


def test_who_had_nothing_in_hand_or_ended_as_asked_is_not(shelf: Shelf) -> None:
    registry = Registry(shelf)
    first, second = registry.board.lanes
    first.begin(1.0, HEARTBEAT.encode())
    second.begin(1.0, b"job")
    second.end()
    registry.die()
    second.begin(2.0, b"job")
    registry.die(2, "exit status 0", was_asked=True)
    assert registry.written() == []
    registry.die(3, "exit status 0")
    registry.die(4, "exit status 3", was_asked=True)
    assert [(worker, how) for worker, _, how, _ in registry.written()] == [
        (3, "exit status 0"),
        (4, "exit status 3"),
    ]


def test_whom_we_have_killed_is_noted_with_the_reason(shelf: Shelf) -> None:
    hung = Worker(1, 1, 0, 4711, Phase.KILLED, 0.0, condemned="it hangs")
    registry = Registry(shelf, hung, msgspec.structs.replace(hung, id=2))
    registry.board.lanes[0].begin(1.0, b"job")
    registry.die(1, "signal ABRT", was_asked=True)
    registry.die(2, "exit status 3", was_asked=True)  # it was faster
    assert [how for _, _, how, _ in registry.written()] == ["killed: it hangs", "exit status 3"]


def test_a_server_that_sees_a_death_again_writes_it_once_and_keeps_the_words(
    shelf: Shelf,
) -> None:
    before = Registry(shelf)
    before.board.lanes[0].begin(1.0, b"job")
    before.die()
    shelf.pass_on()
    heir = Registry(shelf)
    heir.board.lanes[0].begin(1.0, b"other")
    heir.die()
    heir.die(2)
    assert heir.written() == [(1, ("job",), SEGV, "words"), (2, ("other",), SEGV, "words")]
    assert SwapFile(shelf.held["obituaries"].fd).read() == heir.obituaries.file.read()


class Early(Obituaries):
    """Counts the facts that are told before each."""

    def __init__(self, store: Store, ears: Ears) -> None:
        super().__init__(store, lambda: Observed(1))
        self._ears = ears
        self.counts: list[int] = []

    def write(self, exited: ev.WorkerExited, lines: Iterable[Line], *, was_asked: bool) -> None:
        super().write(exited, lines, was_asked=was_asked)
        self.counts.append(len(self._ears.facts))


def notify_socket() -> Held:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind("")
    name = sock.getsockname()[1:].decode()
    return Held(sock.detach(), f"@{name} 0 because")


@pytest.mark.parametrize("phase", [Phase.READY, Phase.STOPPING])
def test_it_is_there_before_the_death_is_told_and_its_line_given_to_another(phase: Phase) -> None:
    """Who was asked to stop is told of when its whole group is gone, and noted before."""

    def body() -> None:
        with ExitStack() as stack:
            child = stack.enter_context(Child(lambda child: child.wait_for_go()))
            prompter = stack.enter_context(Prompter({"notify/1": notify_socket()}))
            kin = Kin("worker/1", child.pid, os.dup(child.pidfd), signal.SIGSEGV)
            ears = Ears()
            parts = make_parts(prompter, [kin], ears)
            scoreboard, loop = parts.stage.scoreboard, parts.loop
            assert scoreboard is not None
            Board(memoryview(mmap.mmap(scoreboard.fd, SIZE_BYTES)), 0, 1).lanes[0].begin(1.0, b"a")
            obituaries = parts.stage.obituaries = Early(prompter.link, ears)
            assert parts.crew.adopt(Worker(1, 1, 0, child.pid, phase, 0.0, stop_signal=15))
            loop.run_once(loop.now())
            assert obituaries.counts == [0]
            prompter.say(wire.Gone("worker/1"))
            run_until(loop, lambda: bool(ears.facts))
            (obituary,) = decode(obituaries.file.read()[1])
            assert (obituary.in_hand, obituary.how) == (("a",), SEGV)
            assert scoreboard.take() == 0
            assert not scoreboard.read(0)[0].is_busy

    in_child(body)


TELL = """
from sengu.worker.obituaries import find
print(find(runtime.obituaries, "job 17").how, file=sys.stderr)
try:
    os.pwrite(runtime.obituaries.fd, b"x", 0)
except OSError as error:
    print(error.strerror, file=sys.stderr)
print(runtime.configuration, file=sys.stderr, flush=True)
"""


def test_workers_that_want_to_know_can_read_them_and_nothing_else(free_path: Path) -> None:
    file = make_swap_file("test")
    file.write(encode([Obituary(1, ("job 17",), SEGV)]))
    with Nursery(free_path, options={"run": TELL}, reads_obituaries=True) as nursery:
        order = orders.Load(nursery.application, "fake", 1)
        fds = (nursery.memory_fd, file.open_to_read())
        packets.send(nursery.socket, orders.encode(order), fds)
        assert isinstance(nursery.report(), orders.Loaded)
        baby = nursery.fork()
        assert [read_line(baby.stderr) for _ in range(4)] == [
            "born 0 0",
            SEGV,
            "Bad file descriptor",
            "None",
        ]
    for fd in (fds[1], file.fd):
        os.close(fd)


def test_workers_of_an_application_that_does_not_have_none(free_path: Path) -> None:
    tell = "print(runtime.obituaries, file=sys.stderr, flush=True)"
    with Nursery(free_path, options={"run": tell}) as nursery:
        nursery.load()
        baby = nursery.fork()
        assert [read_line(baby.stderr) for _ in range(2)] == ["born 0 0", "None"]
