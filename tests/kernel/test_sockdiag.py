"""The kernel's answers about the other end of a connection, with real sockets."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sengu.posix import netlink
from sengu.posix.sockdiag import accepted_inode
from tests.kernel.children import nothing_left_open

Pair = tuple[socket.socket, Callable[[], socket.socket]]  # a listener, and what connects to it
_LINGER_RESET = struct.pack("ii", 1, 0)  # close() sends a reset


def _inode(end: socket.socket) -> int:
    return os.fstat(end.fileno()).st_ino


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with nothing_left_open(), ExitStack() as stack:
        yield stack


_TCP = ("tcp4", "tcp6", "tcp4-to-dual-stack", "mapped-to-tcp4")


@pytest.fixture(params=[*_TCP, "path", "abstract"])
def pair(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Pair:
    family, bound, client_family, reached = {
        "tcp4": (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
        "tcp6": (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
        "tcp4-to-dual-stack": (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
        "mapped-to-tcp4": (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
        "path": (socket.AF_UNIX, str(tmp_path / "s"), socket.AF_UNIX, ""),
        "abstract": (socket.AF_UNIX, f"\0sengu-test-{os.getpid()}", socket.AF_UNIX, ""),
    }[request.param]
    listener = stack.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(bound if family == socket.AF_UNIX else (bound, 0))
    listener.listen(8)

    def connect() -> socket.socket:
        client = stack.enter_context(socket.socket(client_family))
        name = listener.getsockname()
        client.connect(name if family == socket.AF_UNIX else (reached, name[1]))
        return client

    return listener, connect


def test_connection_in_the_accept_queue_has_no_inode(pair: Pair) -> None:
    _listener, connect = pair
    assert accepted_inode(connect()) == 0


def test_accepted_connection_has_the_inode_of_the_accepting_socket(
    pair: Pair, stack: ExitStack
) -> None:
    listener, connect = pair
    first, second = connect(), connect()
    accepted = stack.enter_context(listener.accept()[0])
    assert accepted_inode(first) == _inode(accepted)
    assert accepted_inode(second) == 0


def test_half_closed_client_still_learns_the_inode(pair: Pair, stack: ExitStack) -> None:
    listener, connect = pair
    client = connect()
    client.shutdown(socket.SHUT_WR)
    assert accepted_inode(client) == 0
    accepted = stack.enter_context(listener.accept()[0])
    assert accepted_inode(client) == _inode(accepted)


def test_half_closed_other_end_still_has_its_inode(pair: Pair, stack: ExitStack) -> None:
    listener, connect = pair
    client = connect()
    accepted = stack.enter_context(listener.accept()[0])
    accepted.shutdown(socket.SHUT_WR)
    assert accepted_inode(client) == _inode(accepted)


def test_other_end_that_has_closed_is_told_from_one_that_waits(pair: Pair) -> None:
    listener, connect = pair
    client = connect()
    listener.accept()[0].close()
    with pytest.raises(ConnectionResetError):
        accepted_inode(client)


def test_closed_listener_takes_its_queue_along(pair: Pair) -> None:
    listener, connect = pair
    client = connect()
    listener.close()
    with pytest.raises(ConnectionResetError):
        accepted_inode(client)


@pytest.mark.parametrize("pair", _TCP, indirect=True)
def test_reset_connection_is_closed(pair: Pair) -> None:
    listener, connect = pair
    client = connect()
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    accepted.close()
    with pytest.raises(ConnectionResetError):
        accepted_inode(client)


def test_connection_that_only_the_client_believes_in_waits(stack: ExitStack) -> None:
    """With the accept queue full the server's half is not a socket yet."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    clients = []
    for _ in range(4):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        clients.append(client)
    established = []
    for client in clients:
        try:
            client.getpeername()
        except OSError:  # its SYN was dropped
            continue
        established.append(client)
    assert established
    assert [accepted_inode(client) for client in established] == [0] * len(established)


def test_missing_kernel_module_is_told_from_a_closed_connection(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listener, connect = pair
    client = connect()
    monkeypatch.setattr(netlink, "ask", lambda _question: None)  # ENOENT, whatever is asked
    with pytest.raises(OSError, match=r"lacks (tcp|unix)_diag") as caught:
        accepted_inode(client)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_refusal_of_the_kernel_is_raised() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        netlink.ask(b"\0")
    assert caught.value.errno == errno.EINVAL
