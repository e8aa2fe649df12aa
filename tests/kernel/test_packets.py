"""Packets arrive whole, in order, with their descriptors, and nothing is left open."""

import os
import socket
from collections.abc import Iterator

import pytest

from sengu.posix import packets

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = packets.pair()
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def test_packets_keep_their_bounds_and_their_order(ends: Ends) -> None:
    for data in (b"one", b"two", b"x" * packets.MAX_BYTES):
        packets.send(ends[0], data)
    assert packets.receive(ends[1]) == (b"one", [])
    assert packets.receive(ends[1]) == (b"two", [])
    assert packets.receive(ends[1]) == (b"x" * packets.MAX_BYTES, [])


def test_descriptors_come_with_their_packet_and_do_not_survive_exec(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    packets.send(ends[0], b"here", (read_end, write_end))
    packets.send(ends[0], b"nothing here")
    os.close(read_end)
    os.close(write_end)
    data, (got_read, got_write) = packets.receive(ends[1])
    assert data == b"here"
    os.write(got_write, b"through")
    assert os.read(got_read, 100) == b"through"
    assert not os.get_inheritable(got_read)
    assert packets.receive(ends[1]) == (b"nothing here", [])
    os.close(got_read)
    os.close(got_write)


def test_a_closed_end_is_told_by_an_empty_packet(ends: Ends) -> None:
    packets.send(ends[0], b"last")
    ends[0].close()
    assert packets.receive(ends[1])[0] == b"last"
    assert packets.receive(ends[1]) == (b"", [])
    with pytest.raises(BrokenPipeError):
        packets.send(ends[1], b"anybody?")


def test_nobody_waits_who_does_not_want_to(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        packets.receive(ends[1], socket.MSG_DONTWAIT)
    ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(ends[0])


def fill(end: socket.socket) -> None:
    while True:
        packets.send(end, b"x" * 1000)
