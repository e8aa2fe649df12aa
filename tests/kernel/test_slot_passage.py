"""The passage with a socket for each slot, on real sockets and a world made by hand."""

import select
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
import pytest

from sengu.listeners.listeners import Listeners
from sengu.model import events as ev
from sengu.model.address import Sockets, parse_port
from sengu.model.observed import Observed, Phase, Worker
from sengu.planner.reduce import Fact
from sengu.posix.loop import Loop
from sengu.server.slot_passage import SlotPassage
from tests import netns
from tests.kernel.children import nothing_left_open, run_until
from tests.kernel.groups import PORT
from tests.kernel.shelf import Shelf

PATIENCE_SECONDS = 20.0
QUIET_SECONDS = 0.2  # as long as twenty looks


@pytest.fixture(autouse=True)
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


class World:
    """Observed, and a passage that follows it. Workers are told by slot and phase."""

    def __init__(self, loop: Loop, listeners: Listeners, wanted: int) -> None:
        self._loop = loop
        self.slots = listeners.groups()[0]
        self.passage = SlotPassage(loop, listeners, self)
        self.facts: list[Fact] = []
        self.warnings: list[str] = []
        self.observed = Observed(wanted=wanted)

    def post(self, fact: Fact) -> None:
        self.facts.append(fact)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def have(self, *workers: tuple[int, Phase], **changes: object) -> None:
        """These workers, of ids from 1 on; and the passage follows."""
        living = {
            number: Worker(number, 1, slot, 100 + number, phase, started_at=0.0)
            for number, (slot, phase) in enumerate(workers, 1)
        }
        changed = msgspec.structs.replace(self.observed, workers=living, **changes)
        self.observed = changed
        self.passage.follow(changed)

    def run(self, seconds: float = PATIENCE_SECONDS, drained: int = 1, sockets: int = 0) -> None:
        """Until so many workers have drained, and so many sockets are left; or the time is up."""
        end = self._loop.now() + seconds
        while self._loop.now() < end:
            if len(self.facts) >= drained and sockets in {0, len(self.slots)}:
                return
            self._loop.run_once(end)

    def run_in_vain(self) -> None:
        before = len(self.slots)
        self.run(QUIET_SECONDS)
        assert (self.facts, len(self.slots)) == ([], before)

    def let_relays_end(self) -> None:
        run_until(self._loop, lambda: not self._loop._callbacks)

    def takers(self, count: int = 40) -> set[int]:
        """Slots that get so many clients."""
        found = set()
        for _ in range(count):
            with call():
                found.add(self.take())
        return found

    def take(self) -> int:
        (slot,) = [slot for slot in range(len(self.slots)) if not self.slots.is_empty(slot)]
        self.slots.of(slot).accept()[0].close()
        return slot


def call() -> socket.socket:
    return socket.create_connection(("127.0.0.1", PORT))


@contextmanager
def world(shelf: Shelf, slots: int, port: str = f"127.0.0.1:{PORT}") -> Iterator[World]:
    sockets = Sockets(listeners=(parse_port(port),), reuseport=True)
    with closing(Loop()) as loop, closing(Listeners(sockets, shelf, slots)) as listeners:
        yield World(loop, listeners, slots)


READY, DRAINING, STARTING = Phase.READY, Phase.DRAINING, Phase.STARTING


@netns.isolated
def test_clients_come_to_slots_with_a_ready_worker(shelf: Shelf) -> None:
    with world(shelf, 4) as it:
        it.have((0, READY), (1, STARTING), (2, DRAINING), (2, READY), (3, Phase.STOPPING))
        assert it.takers() == {0, 2}
        it.have((0, READY), (1, READY), (2, READY))
        assert it.takers() == {0, 1, 2}


@netns.isolated
def test_when_nobody_serves_clients_wait_for_all_that_are_wanted(shelf: Shelf) -> None:
    with world(shelf, 4) as it:
        it.have((0, STARTING), (1, STARTING), wanted=2)
        assert it.takers() == {0, 1}
        it.have(wanted=0, rested_from=3)
        assert it.takers() == {0, 1, 2}
        it.run(sockets=3, drained=0)
        assert len(it.slots) == 3, "for them who come back"
        it.have(wanted=0, rested_from=None)
        assert it.takers() == {0}
        it.run(sockets=1, drained=0)
        assert len(it.slots) == 1, "the address stays ours"


@netns.isolated
def test_worker_with_a_successor_in_its_slot_has_drained_at_once(shelf: Shelf) -> None:
    with world(shelf, 2) as it:
        it.have((0, READY), (1, DRAINING), (1, READY))
        with call(), call(), call():
            it.run()
        assert it.facts == [ev.WorkerDrained(2, "another serves those who wait in its slot")]


@netns.isolated
def test_workers_have_drained_at_once_when_nobody_else_serves(shelf: Shelf) -> None:
    with world(shelf, 2) as it:
        it.have((0, DRAINING), (1, DRAINING))
        it.run(drained=2)
        assert {fact.worker for fact in it.facts if isinstance(fact, ev.WorkerDrained)} == {1, 2}


@netns.isolated
def test_worker_has_drained_when_its_queue_stays_empty(shelf: Shelf) -> None:
    with world(shelf, 2) as it:
        it.have((1, READY))
        with call():
            it.have((0, READY), (1, DRAINING))
            it.run_in_vain()
            assert it.take() == 1
            it.run()
        assert it.facts == [ev.WorkerDrained(2, "nobody waits for it any more")]


@netns.isolated
def test_worker_is_not_drained_before_a_client_who_says_nothing_has_come_to_it(
    shelf: Shelf,
) -> None:
    with world(shelf, 2) as it:
        it.slots.of(1).setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        it.have((1, READY))
        with call() as client:
            it.have((0, READY), (1, DRAINING))
            it.run_in_vain()
            client.send(b"hello")
            it.run_in_vain()
            assert it.take() == 1
            it.run()
        assert len(it.facts) == 1


@netns.isolated
def test_who_begins_a_handshake_with_another_slot_later_holds_nobody_up(shelf: Shelf) -> None:
    with world(shelf, 2) as it:
        it.slots.of(0).setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        it.have((1, READY))
        with call():
            it.have((0, READY), (1, DRAINING))
            it.run_in_vain()
            assert it.take() == 1
            with call():
                assert it.slots.half_open()
                it.run()
        assert len(it.facts) == 1


@netns.isolated
def test_datagrams_are_waited_for_as_connections_are(shelf: Shelf) -> None:
    with world(shelf, 2, f"127.0.0.1:u{PORT}") as it:
        it.have((1, READY))
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"", ("127.0.0.1", PORT))
            it.have((0, READY), (1, DRAINING))
            it.run_in_vain()
            assert it.slots.of(1).recv(10) == b""
            it.run()
        assert len(it.facts) == 1


@netns.isolated
def test_sockets_go_with_the_last_worker_of_their_slot_from_the_last_one_down(
    shelf: Shelf,
) -> None:
    with world(shelf, 4) as it:
        it.have((0, READY), (3, Phase.STOPPING), wanted=1)
        it.run_in_vain()
        it.have((0, READY), (1, Phase.KILLED))
        it.run(sockets=2, drained=0)
        assert len(it.slots) == 2
        it.have((0, READY))
        it.run(sockets=1, drained=0)
        assert (len(it.slots), it.takers()) == (1, {0})
        assert it.facts == []


@netns.isolated
def test_whoever_waits_where_nobody_will_come_is_passed_on(shelf: Shelf) -> None:
    with world(shelf, 2) as it:
        it.have((1, READY))
        with call() as client:
            client.settimeout(PATIENCE_SECONDS)
            client.sendall(b"hello")
            it.have(wanted=1)  # it was killed before it came to this one
            it.run_in_vain()  # and nobody else is there
            it.have((0, READY))
            while it.slots.is_empty(0):
                it.run(seconds=0.01)
            served, _ = it.slots.of(0).accept()
            with served:
                while not select.select([served], [], [], 0)[0]:
                    it.run(seconds=0.01)
                assert served.recv(100) == b"hello"
                served.sendall(b"welcome")
            it.run(sockets=1, drained=0)
            assert client.recv(100) == b"welcome"
        it.let_relays_end()
        assert len(it.slots) == 1


@netns.isolated
def test_datagrams_where_nobody_will_come_do_not_keep_the_socket(shelf: Shelf) -> None:
    with world(shelf, 2, f"127.0.0.1:u{PORT}") as it:
        it.have((1, READY))
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"lost", ("127.0.0.1", PORT))
            it.have((0, READY), wanted=1)
            it.run(sockets=1, drained=0)
        assert len(it.slots) == 1


@netns.isolated
def test_next_server_goes_on_between_draining_and_closing(shelf: Shelf) -> None:
    with world(shelf, 3) as it:
        it.have((2, READY), wanted=3)
        client = call()
        it.have((0, READY), (2, DRAINING), wanted=2)
        it.run_in_vain()
        it.slots.leave()  # as if it were killed
        shelf.pass_on()
        with world(shelf, 2) as other, client:
            other.have((0, READY), (2, DRAINING), wanted=2)
            assert len(other.slots) == 3
            other.run_in_vain()
            other.slots.of(2).accept()[0].close()
            other.run()
            assert len(other.facts) == 1
            other.have((0, READY), wanted=2)
            other.run(sockets=2, drained=0)
            assert other.takers() == {0}
