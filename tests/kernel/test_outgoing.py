"""What the kernel still has of what was written to a socket."""

import contextlib
import select
import socket

import pytest

from sengu.posix.outgoing import untaken


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_what_the_other_end_takes_is_seen_before_there_is_room_for_more(host: str) -> None:
    ours, theirs = _pair(host)
    with ours, theirs:
        assert untaken(ours.fileno()) == 0
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while ours.send(b"x" * 100_000):
                pass
        before = untaken(ours.fileno())
        assert before > 0
        while untaken(ours.fileno()) == before:
            assert theirs.recv(100_000)
        room = select.poll()
        room.register(ours, select.POLLOUT)
        assert room.poll(0) == []


def _pair(host: str) -> tuple[socket.socket, socket.socket]:
    if not host:
        return socket.socketpair()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        return listener.accept()[0], client
