"""Connections that are relayed: bytes, ends and resets go both ways, and nothing is left open."""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

import pytest

from sengu.passage.relay import pass_on
from sengu.posix.loop import Loop
from tests.kernel.children import nothing_left_open, run_until

MUCH = bytes(range(256)) * 20_000  # more than the kernel's buffers hold


class Ends(NamedTuple):
    """What the relay is between, and the loop in which it works."""

    client: socket.socket
    server: socket.socket
    loop: Loop

    def receive(self, end: socket.socket, count: int) -> bytes:
        """So many bytes, fewer only when the other has ended."""
        found = bytearray()

        def is_all() -> bool:
            with suppress(BlockingIOError):
                while len(found) < count:
                    data = end.recv(65536)
                    if not data:
                        return True
                    found.extend(data)
            return len(found) >= count

        run_until(self.loop, is_all)
        return bytes(found)

    def send(self, end: socket.socket, data: bytes, other: socket.socket) -> None:
        """All of it, and `other` gets it."""
        left, got = memoryview(data), bytearray()
        while left or len(got) < len(data):
            with suppress(BlockingIOError):
                left = left[end.send(left) :] if left else left
            self.loop.run_once(self.loop.now() + 0.001)
            with suppress(BlockingIOError):
                got.extend(other.recv(1 << 20))
        assert bytes(got) == data


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@contextmanager
def waiting() -> Iterator[tuple[Loop, socket.socket, socket.socket]]:
    """A client that waits at a listener of ours: the loop, that listener and the client."""
    with nothing_left_open(), closing(Loop()) as loop, listener() as ours:
        client = socket.create_connection(ours.getsockname())
        with client:
            yield loop, ours, client


@contextmanager
def relayed() -> Iterator[Ends]:
    with waiting() as (loop, ours, client), listener() as theirs:
        count = pass_on(loop, ours, lambda: connecting(theirs.getsockname()))
        assert count == 1
        with client, theirs.accept()[0] as server:
            client.setblocking(False)
            server.setblocking(False)
            yield Ends(client, server, loop)
        for _ in range(3):  # the relay sees that both have gone
            loop.run_once(loop.now() + 0.05)


def connecting(address: object) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex(address)  # type: ignore[arg-type]
    return made


def test_bytes_go_both_ways() -> None:
    with relayed() as ends:
        ends.client.send(b"hello")
        assert ends.receive(ends.server, 5) == b"hello"
        ends.server.send(b"welcome")
        assert ends.receive(ends.client, 7) == b"welcome"


def test_more_bytes_than_fit_go_both_ways() -> None:
    with relayed() as ends:
        ends.send(ends.client, MUCH, ends.server)
        ends.send(ends.server, MUCH, ends.client)


def test_a_client_that_has_said_all_gets_its_answer() -> None:
    with relayed() as ends:
        ends.client.send(b"hello")
        ends.client.shutdown(socket.SHUT_WR)
        assert ends.receive(ends.server, 6) == b"hello", "and the end"
        ends.server.send(b"welcome")
        ends.server.shutdown(socket.SHUT_WR)
        assert ends.receive(ends.client, 8) == b"welcome", "and the end"


@pytest.mark.parametrize("which", ["client", "server"])
def test_a_reset_is_passed_on(which: str) -> None:
    with relayed() as ends:
        one, other = ends.client, ends.server
        if which == "server":
            one, other = other, one
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
        run_until(ends.loop, lambda: is_reset(other))


def is_reset(end: socket.socket) -> bool:
    try:
        assert end.recv(1) == b"reset, and no end"
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return False


def test_a_client_is_let_go_when_nobody_serves() -> None:
    def nobody() -> socket.socket:
        raise ConnectionRefusedError

    with waiting() as (loop, ours, client):
        pass_on(loop, ours, nobody)
        assert client.recv(1) == b""


def test_a_client_is_reset_when_who_should_serve_does_not_listen() -> None:
    with socket.socket() as deaf, waiting() as (loop, ours, client):
        deaf.bind(("127.0.0.1", 0))
        client.setblocking(False)
        pass_on(loop, ours, lambda: connecting(deaf.getsockname()))
        run_until(loop, lambda: is_reset(client))


def test_who_is_to_be_skipped_is_not_passed_on() -> None:
    with waiting() as (loop, ours, client):
        port = client.getsockname()[1]
        assert pass_on(loop, ours, socket.socket, skip=lambda peer: peer == port) == 0
        assert client.recv(1) == b""
