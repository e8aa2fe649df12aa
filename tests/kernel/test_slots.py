"""A socket for each slot: who gets which client, and what becomes of numbers when slots go."""

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from sengu.errors import UsageError
from sengu.listeners.slots import Slots
from sengu.model.address import InetAddress
from tests import netns
from tests.kernel.children import nothing_left_open
from tests.kernel.groups import PORT
from tests.kernel.shelf import Shelf

BACKLOG = 64
TCP = InetAddress("127.0.0.1", PORT)
UDP = InetAddress("127.0.0.1", PORT, udp=True)
IPV6 = InetAddress("::1", PORT, ipv6=True)
ADDRESSES = pytest.mark.parametrize("address", [TCP, UDP, IPV6], ids=["tcp", "udp", "ipv6"])


@pytest.fixture(autouse=True)
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


def opened(shelf: Shelf, address: InetAddress = TCP, count: int = 4) -> Slots:
    slots = Slots(shelf, "listener/0", address, BACKLOG)
    slots.begin(count)
    return slots


def call(slots: Slots, source_port: int = 0) -> socket.socket:
    """A client that has come to one of the slots, and said something."""
    first = slots.of(0)
    client = socket.socket(first.family, first.type)
    client.bind((first.getsockname()[0], source_port))
    client.connect(first.getsockname())
    client.send(b"hello")
    return client


def takers(slots: Slots, count: int) -> Counter[int]:
    """How many of so many clients came to each slot; nobody waits there any more."""
    found = Counter[int]()
    for _ in range(count):
        with call(slots):
            (slot,) = [slot for slot in range(len(slots)) if not slots.is_empty(slot)]
            found[slot] += 1
            take(slots.of(slot))
    return found


def take(sock: socket.socket) -> None:
    if sock.type == socket.SOCK_DGRAM:
        sock.recv(100)
    else:
        sock.accept()[0].close()


@ADDRESSES
@netns.isolated
def test_chosen_slots_get_an_even_share_and_the_others_nobody(
    shelf: Shelf, address: InetAddress
) -> None:
    slots = opened(shelf, address, 5)
    assert [sock.getsockname()[1] for sock in map(slots.of, range(5))] == [PORT] * 5
    slots.choose({0, 2, 3})
    found = takers(slots, 300)
    assert set(found) == {0, 2, 3}
    assert all(50 < share < 200 for share in found.values()), found


@ADDRESSES
@netns.isolated
def test_number_of_a_socket_is_its_slot_whatever_went_and_came_before(
    shelf: Shelf, address: InetAddress
) -> None:
    slots = opened(shelf, address, 4)
    slots.choose({0, 1})
    slots.close_last()
    slots.close_last()
    assert list(shelf.held) == ["listener/0/0", "listener/0/1"]
    slots.of(4)
    for slot in range(5):
        slots.choose({slot})
        assert set(takers(slots, 10)) == {slot}


@netns.isolated
def test_socket_that_was_closed_is_in_no_group_whoever_has_a_copy_left(shelf: Shelf) -> None:
    slots = opened(shelf, TCP, 3)
    with slots.of(2).dup():
        slots.choose({0, 1})
        slots.close_last()
        slots.close_last()
        slots.of(2)
        for slot in range(3):
            slots.choose({slot})
            assert set(takers(slots, 10)) == {slot}


@netns.isolated
def test_slots_that_are_opened_later_get_nobody_before_they_are_chosen(shelf: Shelf) -> None:
    slots = opened(shelf, TCP, 2)
    slots.choose({0, 1})
    slots.of(3)
    assert set(takers(slots, 60)) == {0, 1}


@ADDRESSES
@netns.isolated
def test_client_that_is_led_comes_to_a_slot_that_is_not_chosen(
    shelf: Shelf, address: InetAddress
) -> None:
    slots = opened(shelf, address, 3)
    slots.choose({0})
    slots.lead(2, 40_000)
    with call(slots, 40_000):
        assert [slots.is_empty(slot) for slot in range(3)] == [True, True, False]
    slots.lead(2, 0)
    with call(slots, 40_000 if address.udp else 40_001):
        assert not slots.is_empty(0)


@netns.isolated
def test_datagrams_of_a_client_come_to_one_slot(shelf: Shelf) -> None:
    slots = opened(shelf, UDP, 4)
    slots.choose(range(4))
    with call(slots) as client:
        for _ in range(20):
            client.send(b"again")
        assert [slots.is_empty(slot) for slot in range(4)].count(False) == 1


@netns.isolated
def test_who_says_nothing_to_workers_that_want_to_hear_is_half_open(shelf: Shelf) -> None:
    slots = opened(shelf, TCP, 1)
    slots.of(0).setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        assert slots.is_empty(0)
        assert slots.half_open() == {client.getsockname()}
        client.send(b"hello")
        assert not slots.is_empty(0)
        assert slots.half_open() == frozenset()
    assert opened(shelf, UDP, 1).half_open() == frozenset()


@netns.isolated
def test_datagrams_are_let_go(shelf: Shelf) -> None:
    slots = opened(shelf, UDP, 1)
    with call(slots) as client:
        client.send(b"")
        slots.discard(0)
        assert slots.is_empty(0)


@ADDRESSES
@netns.isolated
def test_port_0_is_the_same_port_for_all(shelf: Shelf, address: InetAddress) -> None:
    slots = opened(shelf, InetAddress(address.host, 0, address.udp, address.ipv6), 3)
    assert len({slots.of(slot).getsockname() for slot in range(5)}) == 1


@ADDRESSES
@netns.isolated
def test_next_server_has_the_same_sockets_and_steers_them(
    shelf: Shelf, address: InetAddress
) -> None:
    first = opened(shelf, address, 3)
    first.choose({1})
    with call(first):
        first.leave()  # as if it were killed
        shelf.pass_on()
        second = opened(shelf, address, 7)
        assert len(second) == 3, "those there are, and no others"
        take(second.of(1))
        assert set(takers(second, 10)) == {1}, "the kernel has kept what was chosen"
        second.choose({0, 2})
        assert set(takers(second, 40)) == {0, 2}


@ADDRESSES
@netns.isolated
def test_numbers_are_slots_also_for_who_finds_what_was_closed_and_is_still_held(
    shelf: Shelf, address: InetAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predecessor was killed before it could say so. Of UDP these are sockets like others."""
    first = opened(shelf, address, 4)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "drop", lambda name: None)
        first.close_last()
        first.close_last()
    first.leave()
    shelf.pass_on()
    second = opened(shelf, address, 1)
    second.of(3)
    for slot in range(4):
        second.choose({slot})
        assert set(takers(second, 10)) == {slot}


@ADDRESSES
@netns.isolated
def test_group_of_somebody_else_is_not_joined(shelf: Shelf, address: InetAddress) -> None:
    """The kernel would let us: he is of the same user."""
    family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if address.udp else socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((address.host, address.port))
        if not address.udp:
            other.listen()
        with pytest.raises(UsageError, match=r"cannot bind .*: address already in use"):
            opened(shelf, address)


@netns.isolated
def test_socket_that_cannot_be_kept_is_not_opened() -> None:
    class Full(Shelf):
        def hold(self, name: str, fd: int, note: str = "") -> None:
            if name.endswith("/2"):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            super().hold(name, fd, note)

    with Full() as shelf:
        with pytest.raises(UsageError, match=f"cannot keep 127.0.0.1:{PORT}: Too many open files"):
            opened(shelf, TCP, 4)
        slots = opened(shelf, InetAddress("127.0.0.1", PORT + 1), 2)
        with pytest.raises(UsageError, match="cannot keep"):
            slots.of(2)
        assert len(slots) == 2
