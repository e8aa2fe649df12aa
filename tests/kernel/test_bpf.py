"""Programs that the kernel runs for a new client, and for the queue of a member that closes.

No test sets net.ipv4.tcp_migrate_req: it is 0 in a new network namespace.
"""

import errno
import os
import socket
from contextlib import closing

import pytest

from sengu.posix import bpf, reuseport
from sengu.posix.bpf import SocketArray
from sengu.posix.listening import listening
from tests import netns
from tests.kernel.children import Child, in_child
from tests.kernel.groups import PORT, accepted, become_nobody, connect, group, member, shares
from tests.support import give_up, needs_root

pytestmark = pytest.mark.usefixtures("bpf_is_allowed", "nothing_left")

_HOSTS = ["127.0.0.1"]
_CLIENTS = 400  # so that chance makes no share of them too small
addresses = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@pytest.fixture
def bpf_is_allowed() -> None:
    try:
        os.close(bpf.load_migration())
    except PermissionError as error:
        give_up(f"no program can be loaded: {error}")


def _array(*members: socket.socket) -> SocketArray:
    array = SocketArray(len(members))
    for number, one in enumerate(members):
        array.put(number, one.fileno())
    return array


def _wait_in(closing_one: socket.socket, clients: int) -> list[socket.socket]:
    """So many clients in the queue of `closing_one`; then no program is left on the group."""
    array = _array(closing_one)
    bpf.attach(closing_one.fileno(), bpf.load_choice(array, range(1)))
    host = closing_one.getsockname()[0]
    found = [connect(host) for _ in range(clients)]
    array.remove(0)
    array.close()
    reuseport.detach(closing_one.fileno())
    return found


def _are_served(clients: list[socket.socket], members: list[socket.socket]) -> bool:
    """Whether every one of them hears from some member."""
    for connection in accepted(members, len(clients)):
        connection.send(b"x")
    return all(client.recv(1) == b"x" for client in clients)


@addresses
@netns.isolated
def test_choice_is_even_among_its_range_of_numbers(host: str) -> None:
    members = group(host, 6)
    array = _array(members[5], members[1], members[4], members[0])
    bpf.attach(members[2].fileno(), bpf.load_choice(array, range(1, 4)))
    found = shares(members, [host], _CLIENTS)
    assert set(found) == {0, 1, 4}
    assert all(_CLIENTS / 6 < share < _CLIENTS / 1.5 for share in found.values()), found


@netns.isolated
def test_number_in_the_array_stays_when_others_close() -> None:
    members = group("127.0.0.1", 4)
    array = _array(members[2])
    bpf.attach(members[0].fileno(), bpf.load_choice(array, range(1)))
    members.pop(0).close()  # the last of the group gets its number there
    assert set(shares(members, _HOSTS, 20)) == {1}


@netns.isolated
def test_program_and_array_outlive_their_descriptors() -> None:
    members = group("127.0.0.1", 3)
    array = _array(members[1])
    program = bpf.load_choice(array, range(1))
    bpf.attach(members[0].fileno(), program)
    os.close(program)
    array.close()
    assert set(shares(members, _HOSTS, 20)) == {1}


@netns.isolated
def test_number_that_nobody_has_leaves_the_choice_to_the_kernel() -> None:
    members = group("127.0.0.1", 2)
    bpf.attach(members[0].fileno(), bpf.load_choice(SocketArray(1), range(1)))
    assert set(shares(members, _HOSTS, _CLIENTS)) == {0, 1}


@addresses
@netns.isolated
def test_queue_of_a_member_that_closes_goes_where_the_choice_says(host: str) -> None:
    members = group(host, 4)
    clients = _wait_in(members[0], 50)
    array = _array(members[1], members[3])
    bpf.attach(members[0].fileno(), bpf.load_choice(array, range(2)))
    members[0].close()
    assert _are_served(clients, [members[1], members[3]])


@addresses
@netns.isolated
def test_queue_of_a_member_that_closes_moves_with_the_least_of_programs(host: str) -> None:
    members = group(host, 3)
    clients = _wait_in(members[0], 50)
    bpf.attach(members[1].fileno(), bpf.load_migration())
    members[0].close()
    assert _are_served(clients, members[1:])


@netns.isolated
def test_queue_moves_when_its_holder_is_killed() -> None:
    mine = member("127.0.0.1")

    def hold(child: Child) -> None:
        mine.close()
        theirs = member("127.0.0.1")
        bpf.attach(theirs.fileno(), bpf.load_choice(_array(theirs), range(1)))
        child.tell("ready")
        child.wait_for_go()

    with Child(hold) as child:
        child.wait_to_hear("ready")
        clients = [connect("127.0.0.1") for _ in range(20)]
        assert sum(found.queue for found in listening(socket.AF_INET, PORT)) == 20
        with pytest.raises(BlockingIOError):
            mine.accept()
    assert _are_served(clients, [mine])  # a Child is killed at the end


@netns.isolated
def test_choice_by_hash_is_still_everybodys_with_the_least_of_programs() -> None:
    members = group("127.0.0.1", 2)
    bpf.attach(members[0].fileno(), bpf.load_migration())
    assert set(shares(members, _HOSTS, _CLIENTS)) == {0, 1}


@netns.isolated
def test_without_a_program_the_queue_is_reset() -> None:
    """What all of this is for."""
    members = group("127.0.0.1", 2)
    clients = _wait_in(members[0], 5)
    members[0].close()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@netns.isolated
def test_detached_program_moves_nothing() -> None:
    members = group("127.0.0.1", 2)
    clients = _wait_in(members[0], 5)
    bpf.attach(members[0].fileno(), bpf.load_migration())
    reuseport.detach(members[1].fileno())
    members[0].close()
    with pytest.raises(ConnectionResetError):
        clients[0].recv(1)


@netns.isolated
def test_loaded_program_is_attached_without_privilege() -> None:
    needs_root()
    members = group("127.0.0.1", 3)
    array = _array(members[2])
    program = bpf.load_choice(array, range(1))

    def attach() -> None:
        become_nobody()
        bpf.attach(members[0].fileno(), program)

    in_child(attach)
    assert set(shares(members, _HOSTS, 20)) == {2}


def test_loading_without_privilege_is_refused() -> None:
    needs_root()
    with open("/proc/sys/kernel/unprivileged_bpf_disabled") as disabled:
        if disabled.read().strip() == "0":
            give_up("kernel.unprivileged_bpf_disabled is 0 here: everybody may load programs")

    def load() -> None:
        become_nobody()
        with pytest.raises(PermissionError):
            bpf.load_migration()
        with pytest.raises(PermissionError):
            SocketArray(1)

    in_child(load)


@netns.isolated
def test_socket_has_one_number_at_a_time() -> None:
    (one,) = group("127.0.0.1", 1)
    array = SocketArray(2)
    array.put(0, one.fileno())
    with pytest.raises(OSError) as caught:
        array.put(1, one.fileno())
    assert caught.value.errno == errno.EBUSY
    array.remove(0)
    array.put(1, one.fileno())
    with pytest.raises(FileNotFoundError):
        array.remove(0)


def test_socket_outside_a_group_has_no_number() -> None:
    with closing(SocketArray(1)) as array, socket.create_server(("127.0.0.1", 0)) as alone:
        with pytest.raises(OSError) as caught:
            array.put(0, alone.fileno())
        assert caught.value.errno == errno.EINVAL


def test_what_is_made_is_not_inherited() -> None:
    with closing(SocketArray(1)) as array:
        program = bpf.load_choice(array, range(1))
        assert not os.get_inheritable(array.fd)
        assert not os.get_inheritable(program)
        os.close(program)
