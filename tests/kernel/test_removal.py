"""How sockets of ours leave a group: with nobody lost who comes meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sengu.passage.places import Ground, choose, find_places, wait_for_handshakes
from sengu.passage.relay import pass_on
from sengu.passage.removal import Removal
from sengu.passage.steering import inode_of
from sengu.posix.listening import Peer, half_open
from tests import netns
from tests.kernel.grounds import HOST, ground, program, relays_that_end, see, waiting
from tests.kernel.groups import connect, group, member


@contextmanager
def group_of_ours(where: Ground, size: int) -> Iterator[list[socket.socket]]:
    ours = group(HOST, size)
    where.group.disown(map(inode_of, ours))
    try:
        yield ours
    finally:
        for sock in ours:
            sock.close()


@netns.isolated
def test_place_of_ours_is_found_behind_many_others_without_waiting_at_each() -> None:
    with ground() as where, program(40), member(HOST) as ours:
        before = where.loop.now()
        assert find_places(where, ours, [ours], [range(40)]) == {40: ours}
        assert where.loop.now() - before < 4.0  # the loop stands still meanwhile


@netns.isolated
def test_who_is_in_a_handshake_with_a_socket_of_ours_is_served_before_that_closes() -> None:
    with (
        ground() as where,
        program(1) as living,
        member(HOST) as ours,
        pytest.MonkeyPatch.context() as patch,
    ):
        inode = inode_of(ours)
        where.group.disown([inode])
        # With this a handshake ends with the first data and not before.
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 20)
        choose(where, ours, [range(1, 2)])
        client = connect(HOST)
        looks: list[frozenset[Peer]] = []

        def look(family: int, port: int) -> frozenset[Peer]:
            looks.append(half_open(family, port))
            if len(looks) == 3:
                client.sendall(b"hello")
            return looks[-1]

        def wait(ground: Ground) -> None:
            patch.setattr("sengu.passage.places.half_open", look)
            wait_for_handshakes(ground)

        patch.setattr("sengu.passage.removal.wait_for_handshakes", wait)
        with relays_that_end(where):
            Removal(where, None, migrates=False).run([ours], [range(2)])
            assert looks == [{client.getsockname()}] * 3 + [frozenset()]
            # The other is ours, and asked who is there.
            assert waiting(where, see(where).sockets) == 1 + 1
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            living.go()
            client.close()


@netns.isolated
def test_nobody_comes_to_a_socket_of_ours_between_the_last_look_and_its_end() -> None:
    """Also when it is the last of the group and nobody has to move."""
    with ground() as where, program(2), group_of_ours(where, 2) as ours:
        empty = pass_on

        def pass_on_and_connect(*args: Any, **options: Any) -> int:
            number = empty(*args, **options)
            clients.extend(connect(HOST) for _ in range(20))
            return number

        clients: list[socket.socket] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sengu.passage.removal.pass_on", pass_on_and_connect)
            Removal(where, None, migrates=False).run(ours, [range(4)])
        assert len(clients) == 40
        assert waiting(where, see(where).sockets) == 40 + 2
        for client in clients:
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            client.close()


@netns.isolated
def test_sockets_of_ours_are_taken_out_though_all_others_have_closed_meanwhile() -> None:
    with ground() as where:
        Removal(where, None, migrates=False).run(group(HOST, 3), [range(3)])
        assert where.group.count() == 0
