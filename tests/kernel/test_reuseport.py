"""Who of a group gets the next client: classic BPF programs, run by the kernel."""

import errno
import os
import socket

import pytest

from sengu.posix import reuseport
from sengu.posix.reuseport import Branch, Flow, choose
from tests import netns
from tests.kernel.children import in_child
from tests.kernel.groups import PORT, become_nobody, connect, group, member, shares, taker
from tests.support import needs_root

# Of a group: the address, and those by which it is reached. `::` takes IPv4 clients as well.
_PLACES = [("0.0.0.0", ("127.0.0.1", "127.0.0.2")), ("::1", ("::1",)), ("::", ("::1", "127.0.0.1"))]
places = pytest.mark.parametrize(("place", "hosts"), _PLACES)

_CLIENTS = 400  # so that chance makes no share of them too small


def _steer(one: socket.socket, *ranges: range, branch: Branch | None = None) -> None:
    is_ipv6 = one.family == socket.AF_INET6
    reuseport.attach(one.fileno(), choose(ranges, Flow.RANDOM, branch, ipv6=is_ipv6))


@places
@netns.isolated
def test_chosen_member_gets_every_client(place: str, hosts: tuple[str, ...]) -> None:
    members = group(place, 4)
    for number in range(4):
        _steer(members[0], range(number, number + 1))
        assert set(shares(members, hosts, 20)) == {number}


@places
@netns.isolated
def test_ranges_share_clients_evenly_and_the_others_get_none(
    place: str, hosts: tuple[str, ...]
) -> None:
    members = group(place, 7)
    _steer(members[3], range(5, 7), range(0), range(1, 2), range(3, 4))
    found = shares(members, hosts, _CLIENTS)
    assert set(found) == {1, 3, 5, 6}
    fair = _CLIENTS * len(hosts) / 4
    assert all(fair / 2 < share < fair * 2 for share in found.values()), found


@places
@netns.isolated
def test_source_port_of_the_branch_goes_its_own_way(place: str, hosts: tuple[str, ...]) -> None:
    members = group(place, 4)
    _steer(members[0], range(1, 3), branch=Branch(40_000, 3))
    for host in hosts:
        for source_port, expected in ((40_000, {3}), (40_001, {1, 2}), (39_999, {1, 2})):
            connect(host, source_port).close()
            assert taker(members) in expected


@netns.isolated
def test_source_port_is_found_behind_ip_options() -> None:
    members = group("127.0.0.1", 3)
    _steer(members[0], range(1), branch=Branch(40_000, 2))
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 8)  # no operation
        client.bind(("", 40_000))
        client.connect(("127.0.0.1", PORT))
        assert taker(members) == 2


@netns.isolated
def test_latest_program_governs_whoever_attached_it_and_whoever_came_later() -> None:
    members = group("127.0.0.1", 2)
    _steer(members[0], range(1))
    members.append(member("127.0.0.1"))
    _steer(members[1], range(2, 3))
    assert set(shares(members, ["127.0.0.1"], 20)) == {2}


@netns.isolated
def test_last_member_gets_the_number_of_one_that_closes() -> None:
    members = group("127.0.0.1", 4)
    _steer(members[1], range(1))
    members.pop(0).close()
    *_, last = members
    assert set(shares([last], ["127.0.0.1"], 20)) == {0}


@netns.isolated
def test_number_of_nobody_leaves_the_choice_to_the_kernel() -> None:
    members = group("127.0.0.1", 2)
    _steer(members[0], range(2, 3))
    assert set(shares(members, ["127.0.0.1"], _CLIENTS)) == {0, 1}


@netns.isolated
def test_detached_group_is_hashed_again() -> None:
    members = group("127.0.0.1", 2)
    _steer(members[0], range(1))
    assert set(shares(members, ["127.0.0.1"], 20)) == {0}
    reuseport.detach(members[1].fileno())
    assert set(shares(members, ["127.0.0.1"], _CLIENTS)) == {0, 1}


@netns.isolated
def test_detaching_where_nothing_is_attached_is_no_error() -> None:
    (alone,) = group("127.0.0.1", 1)
    reuseport.detach(alone.fileno())


@netns.isolated
def test_steering_takes_no_privilege() -> None:
    needs_root()
    members = group("127.0.0.1", 3)

    def steer() -> None:
        become_nobody()
        _steer(members[0], range(2, 3))

    in_child(steer)
    assert set(shares(members, ["127.0.0.1"], 20)) == {2}


@netns.isolated
def test_socket_that_is_steered_before_it_listens_cannot_join() -> None:
    """The trap of which attach() warns."""
    with member("127.0.0.1"), socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        late.bind(("127.0.0.1", PORT))
        _steer(late, range(1))
        with pytest.raises(OSError) as caught:
            late.listen()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("place", ["127.0.0.1", "::1"])
@netns.isolated
def test_datagrams_of_one_source_port_stay_together(place: str) -> None:
    members = group(place, 4, socket.SOCK_DGRAM)
    is_ipv6 = members[0].family == socket.AF_INET6
    program = choose([range(1), range(2, 4)], Flow.SOURCE_PORT, Branch(40_000, 1), ipv6=is_ipv6)
    reuseport.attach(members[0].fileno(), program)
    found = [_taker_of_datagrams(members, place, port) for port in range(40_001, 40_091)]
    assert set(found) == {0, 2, 3}
    assert all(15 < found.count(number) < 60 for number in (0, 2, 3)), found
    assert _taker_of_datagrams(members, place, 40_000) == 1


def _taker_of_datagrams(members: list[socket.socket], place: str, source_port: int) -> int:
    """Who gets all five of that client's."""
    with socket.socket(members[0].family, socket.SOCK_DGRAM) as client:
        client.bind((place, source_port))
        for _ in range(5):
            client.sendto(b"x", (place, PORT))
    found = set()
    for number, one in enumerate(members):
        try:
            while True:
                one.recv(1)
                found.add(number)
        except BlockingIOError:  # all read
            continue
    (number,) = found
    return number


def test_refusal_of_the_kernel_is_raised() -> None:
    with open(os.devnull) as no_socket, pytest.raises(OSError) as caught:
        reuseport.attach(no_socket.fileno(), choose([range(1)], Flow.RANDOM, ipv6=False))
    assert caught.value.errno == errno.ENOTSOCK


def test_choice_among_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="among no sockets"):
        choose([range(3, 3)], Flow.RANDOM, ipv6=False)
