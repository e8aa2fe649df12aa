"""Who listens on a port and what waits there, with real sockets."""

import errno
import os
import socket

import pytest

from sengu.posix import netlink
from sengu.posix.listening import Listening, Traffic, connections, half_open, listening
from tests import netns
from tests.kernel.groups import PORT, connect, group, member
from tests.support import needs_root

# Where a member listens, by which address a client comes, and from which.
_PLACES = [
    ("127.0.0.1", "127.0.0.1", "127.0.0.3"),
    ("::1", "::1", "::1"),
    ("::", "::1", "::1"),
    ("::", "127.0.0.1", "127.0.0.3"),
]


def _inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@netns.isolated
def test_listener_is_found_with_all_that_matters(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.bind((host, PORT))
        assert listening(one.family, PORT) == []  # bound is not listening
        one.listen(7)
        is_only = host == "::1"  # no IPv4 client can mean that address
        expected = Listening(_inode(one), host, PORT, one.family, 0, 7, os.getuid(), is_only)
        assert listening(one.family, PORT) == [expected]


@netns.isolated
def test_queue_is_what_nobody_has_accepted() -> None:
    with member("127.0.0.1") as one:
        clients = [connect("127.0.0.1") for _ in range(3)]
        assert [found.queue for found in listening(socket.AF_INET, PORT)] == [3]
        one.accept()[0].close()
        clients.pop().close()  # one that has hung up waits on: it has to be accepted as well
        assert [found.queue for found in listening(socket.AF_INET, PORT)] == [2]


@netns.isolated
def test_every_address_of_the_port_is_found_and_no_other_port() -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    members = [*group(hosts[0], 2), member(hosts[1])]
    with socket.create_server(("127.0.0.1", PORT + 1)):
        found = listening(socket.AF_INET, PORT)
    assert {one.inode for one in found} == {_inode(one) for one in members}
    assert {one.host for one in found} == set(hosts)


@netns.isolated
def test_families_are_apart_even_where_one_socket_takes_both() -> None:
    with member("::") as both:
        connect("127.0.0.1")
        assert [found.queue for found in listening(both.family, PORT)] == [1]
        assert listening(socket.AF_INET, PORT) == []


def _traffic(client: socket.socket) -> Traffic:
    """What the kernel tells of the server's end of that client's connection."""
    return connections(client.family, PORT)[client.getsockname()[:2]]


@netns.isolated
def test_what_has_gone_over_a_connection_is_told_before_and_after_it_is_accepted() -> None:
    with member("127.0.0.1") as one, connect("127.0.0.1") as client:
        assert (_traffic(client).received, _traffic(client).sent) == (0, 0)
        client.sendall(b"request")
        assert (_traffic(client).received, _traffic(client).sent) == (7, 0)
        with one.accept()[0] as accepted:
            assert not _traffic(client).is_answered
            accepted.sendall(b"the answer")
            assert (_traffic(client).received, _traffic(client).sent) == (7, 10)
            assert _traffic(client).is_answered


@netns.isolated
def test_whoever_asks_again_is_not_answered_any_more() -> None:
    with member("127.0.0.1") as one, connect("127.0.0.1") as client:
        client.sendall(b"request")
        with one.accept()[0] as accepted:
            accepted.sendall(b"answer")
            while _traffic(client).sent_ms == 0:  # the kernel's clock has ticked then
                assert _traffic(client).is_answered
            client.sendall(b"again")
            assert not _traffic(client).is_answered


@netns.isolated
def test_clients_who_have_said_all_are_told_of_and_those_who_are_gone_are_not() -> None:
    with member("127.0.0.1") as one, connect("127.0.0.1") as client:
        accepted = one.accept()[0]
        client.shutdown(socket.SHUT_WR)
        assert len(connections(socket.AF_INET, PORT)) == 1
        accepted.close()
        assert connections(socket.AF_INET, PORT) == {}


@netns.isolated
def test_connections_of_the_port_are_not_listeners() -> None:
    with member("127.0.0.1") as one:
        client = connect("127.0.0.1")
        accepted = one.accept()[0]
        client.shutdown(socket.SHUT_WR)
        assert [found.inode for found in listening(socket.AF_INET, PORT)] == [_inode(one)]
        one.close()
        assert listening(socket.AF_INET, PORT) == []
        accepted.close()


@netns.isolated
def test_more_sockets_than_fit_into_one_part_of_the_answer_are_all_found_once() -> None:
    members = group("127.0.0.1", 700)
    found = [one.inode for one in listening(socket.AF_INET, PORT)]
    assert sorted(found) == sorted(map(_inode, members))


@netns.isolated
def test_listener_is_somebodys() -> None:
    needs_root()
    with socket.socket() as one:
        os.fchown(one.fileno(), 65534, -1)
        one.bind(("127.0.0.1", PORT))
        one.listen()
        assert [found.uid for found in listening(socket.AF_INET, PORT)] == [65534]


@pytest.mark.parametrize(("place", "host", "source_host"), _PLACES)
@netns.isolated
def test_handshake_that_has_not_ended_is_half_open(place: str, host: str, source_host: str) -> None:
    with member(place) as one:
        # With this a handshake ends with the first data and not before.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        client = connect(host, source_host=source_host)
        peer = client.getsockname()[:2]
        if one.family != client.family:
            peer = (f"::ffff:{peer[0]}", peer[1])
        assert half_open(one.family, PORT) == {peer}
        assert half_open(one.family, PORT + 1) == frozenset()
        assert [found.queue for found in listening(one.family, PORT)] == [0]
        client.send(b"x")
        assert half_open(one.family, PORT) == frozenset()
        assert [found.queue for found in listening(one.family, PORT)] == [1]


@netns.isolated
def test_refusal_of_the_kernel_is_raised() -> None:
    with pytest.raises(OSError) as caught:
        netlink.dump(b"\0")
    assert caught.value.errno == errno.EINVAL


def test_missing_kernel_module_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(_question: bytes) -> list[bytes]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(netlink, "dump", lack)
    with pytest.raises(OSError, match="lacks tcp_diag") as caught:
        listening(socket.AF_INET, PORT)
    assert caught.value.errno == errno.EOPNOTSUPP
