"""Listening sockets: bound, taken over, healed, laid out for workers."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.errors import UsageError
from sengu.listeners.bind import file_identity, is_alive, open_listener, remove_stale
from sengu.listeners.listener import spell_address
from sengu.listeners.listeners import Listeners
from sengu.model.address import InetAddress, Inherited, Sockets, UnixAddress, parse_path, parse_port
from tests.kernel.children import in_child, nothing_left_open
from tests.kernel.shelf import Shelf

BACKLOG = 16
MODE = 0o640


@pytest.fixture(autouse=True)
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


@pytest.fixture
def path(free_path: Path) -> str:
    return str(free_path / "socket")


def open_unix(path: str) -> socket.socket:
    return open_listener(UnixAddress(path), BACKLOG, MODE)


def test_a_tcp_listener_takes_connections_and_can_be_bound_again_at_once(port: int) -> None:
    for _ in range(2):
        with open_listener(InetAddress("127.0.0.1", port), BACKLOG, MODE) as listener:
            assert not listener.get_inheritable()
            assert listener.getblocking()
            with socket.create_connection(("127.0.0.1", port)):
                accepted, _ = listener.accept()
                accepted.close()  # first, so that the port stays in TIME_WAIT


def test_udp_and_ipv6_are_bound_as_asked(port: int) -> None:
    with open_listener(InetAddress("127.0.0.1", port, udp=True), BACKLOG, MODE) as listener:
        assert listener.type is socket.SOCK_DGRAM
        assert spell_address(listener) == f"127.0.0.1:{port}/udp"
    with open_listener(InetAddress("::1", port, ipv6=True), BACKLOG, MODE) as listener:
        assert listener.family is socket.AF_INET6
        assert spell_address(listener) == f"[::1]:{port}"
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_port_in_use_and_a_foreign_address_are_told_with_the_next_step(port: int) -> None:
    with (
        open_listener(InetAddress("127.0.0.1", port), BACKLOG, MODE),
        pytest.raises(UsageError, match=rf"cannot bind 127.0.0.1:{port}: .* in use; stop"),
    ):
        open_listener(InetAddress("127.0.0.1", port), BACKLOG, MODE)
    with pytest.raises(UsageError, match="no interface of this machine has that address"):
        open_listener(InetAddress("192.0.2.1", port), BACKLOG, MODE)
    with pytest.raises(UsageError, match="the name does not resolve"):
        open_listener(InetAddress("no.such.host.invalid", port), BACKLOG, MODE)


def test_a_udp_port_is_taken_once(port: int) -> None:
    address = InetAddress("127.0.0.1", port, udp=True)
    with (
        open_listener(address, BACKLOG, MODE),
        pytest.raises(UsageError, match=r"/udp: .* in use; stop"),
    ):
        open_listener(address, BACKLOG, MODE)


def test_a_socket_file_has_the_mode_whatever_the_umask(path: str) -> None:
    def body() -> None:
        os.umask(0o077)
        with open_unix(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == MODE
        assert os.umask(0) == 0o077
        os.unlink(path)

    in_child(body)


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(path: str) -> None:
    open_unix(path).close()
    assert os.path.exists(path)
    assert not is_alive(path)
    with open_unix(path):
        assert is_alive(path)
        with pytest.raises(UsageError, match="somebody is listening on"):
            open_unix(path)
        assert is_alive(path)


def test_a_full_queue_and_another_kind_of_socket_are_alive(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen(0)
        client.connect(path)
        assert is_alive(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(path)
        with pytest.raises(UsageError, match="somebody is listening on"):
            remove_stale(path)


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(UsageError, match="exists and is not a socket"):
        open_unix(path)
    assert Path(path).read_text() == "precious"


def test_abstract_names_leave_no_file_and_are_taken_once() -> None:
    name = f"@sengu-test-{os.getpid()}"
    with open_unix(name) as listener:
        assert spell_address(listener) == name
        with pytest.raises(UsageError, match="somebody listens there already"):
            open_unix(name)


def test_no_descriptor_left_is_told_as_any_other_failure(path: str) -> None:
    def body() -> None:
        import resource

        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, lowest_free))
        for address in (UnixAddress(path), InetAddress("127.0.0.1", 0)):
            with pytest.raises(UsageError, match="Too many open files"):
                open_listener(address, BACKLOG, MODE)

    in_child(body)


def test_the_first_that_cannot_be_bound_closes_those_before_it(path: str, shelf: Shelf) -> None:
    Path(path).write_text("in the way")
    sockets = Sockets(listeners=(parse_path(f"{path}.first"), parse_path(path)))
    with pytest.raises(UsageError):
        Listeners(sockets, shelf)
    assert not os.path.exists(f"{path}.first")


def test_who_goes_on_with_a_listener_is_found_by_its_file(path: str, shelf: Shelf) -> None:
    listeners = Listeners(Sockets((parse_path(path),)), shelf)
    (listener,) = listeners
    with listener.socket.dup():
        listeners.leave()
        listeners.close()
        assert is_alive(path)


def test_workers_are_told_of_listeners_in_both_ways(port: int, path: str, shelf: Shelf) -> None:
    sockets = Sockets(listeners=(parse_port(f"127.0.0.1:{port}"), parse_path(path)))
    with closing(Listeners(sockets, shelf)) as listeners:
        tcp, unix = listeners
        layout = listeners.layout()
        assert layout.descriptors == {3: tcp.socket.fileno(), 4: unix.socket.fileno()}
        assert layout.next_fd == 5
        assert layout.environment == {
            "SERVER_STARTER_PORT": f"127.0.0.1:{port}=3;{path}=4",
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": f"tcp-{port}:unix-socket",
        }
    assert not os.path.exists(path)


def test_without_listeners_there_is_nothing_to_tell_but_the_empty_variable(shelf: Shelf) -> None:
    layout = Listeners(Sockets(), shelf).layout()
    assert layout.descriptors == {}
    assert layout.environment == {"SERVER_STARTER_PORT": ""}
    assert layout.next_fd == 3


def test_a_wanted_number_is_given_and_the_range_from_3_on_stays_whole(
    path: str, shelf: Shelf
) -> None:
    sockets = Sockets(
        listeners=(parse_port("127.0.0.1:0=4"), parse_path(path), parse_port("127.0.0.1:0=9"))
    )
    with closing(Listeners(sockets, shelf)) as listeners:
        first, second, third = listeners
        layout = listeners.layout()
        assert (first.fd, second.fd, third.fd) == (4, 3, 5)
        assert layout.descriptors == {
            3: second.socket.fileno(),
            4: first.socket.fileno(),
            5: third.socket.fileno(),
            9: third.socket.fileno(),
        }
        assert layout.next_fd == 10
        assert layout.environment["SERVER_STARTER_PORT"] == f"127.0.0.1:0=4;{path}=3;127.0.0.1:0=9"
        assert layout.environment["LISTEN_FDNAMES"] == "unix-socket:tcp-0:tcp-0"


def test_a_passed_socket_is_taken_over_and_its_file_is_not_ours_to_remove(
    path: str, shelf: Shelf
) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen()
        shelf.hold("inherited/3", given.fileno())
        sockets = Sockets(listeners=(parse_path(path),), inherited=(Inherited(3, "web"),))
        for _ in range(2):
            shelf.pass_on()
            with closing(Listeners(sockets, shelf)) as listeners:
                (listener,) = listeners
                assert listener.address == path
                assert (listener.name, listener.key) == ("web", path)
    assert os.path.exists(path)
    assert list(shelf.held) == ["inherited/3"]


@pytest.mark.parametrize("only_ipv6", [False, True])
def test_a_passed_socket_for_both_ip_versions_is_taken_for_a_port_of_ipv4(
    port: int, only_ipv6: bool, shelf: Shelf
) -> None:
    with socket.socket(socket.AF_INET6) as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        given.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        given.bind(("::", port))
        given.listen()
        shelf.hold("inherited/3", given.fileno())
        shelf.pass_on()
        inherited = Inherited(3, "web")
        sockets = Sockets(listeners=(parse_port(str(port)),), inherited=(inherited,))
        with closing(Listeners(sockets, shelf)) as listeners:
            addresses = [listener.address for listener in listeners]
    both = [f"[::]:{port}"]
    assert addresses == ([f"0.0.0.0:{port}", *both] if only_ipv6 else both)


def test_each_slot_has_its_own_sockets_but_for_those_that_were_passed(
    port: int, shelf: Shelf
) -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        shelf.hold("inherited/3", given.fileno())
        shelf.pass_on()
        sockets = Sockets(
            listeners=(parse_port(f"127.0.0.1:{port}=9"), parse_port(f"127.0.0.1:u{port}")),
            inherited=(Inherited(3, "web"),),
            reuseport=True,
        )
        with closing(Listeners(sockets, shelf)) as listeners:
            tcp, udp, passed = listeners
            first, second = listeners.layout(0), listeners.layout(1)
            for slot, layout in enumerate((first, second)):
                assert layout.own == {
                    3: tcp.socket_of(slot).fileno(),
                    4: udp.socket_of(slot).fileno(),
                    9: tcp.socket_of(slot).fileno(),
                }
                assert layout.descriptors == {**layout.own, 5: passed.socket.fileno()}
            assert first.environment == second.environment
            assert not set(first.own.values()) & set(second.own.values())
            assert tcp.address == f"127.0.0.1:{port}"
        names = ["inherited/3", *(f"listener/{n}/{slot}" for slot in (0, 1) for n in (0, 1))]
        assert sorted(shelf.held) == sorted(names)


def test_a_passed_descriptor_that_is_no_socket_is_refused(shelf: Shelf) -> None:
    sockets = Sockets(inherited=(Inherited(3, "odd"),))
    with pytest.raises(UsageError, match="descriptor 3 was passed to us as 'odd' but is no"):
        Listeners(sockets, shelf)

    def body() -> None:
        with open(os.devnull) as null:
            shelf.hold("inherited/3", null.fileno())
        shelf.pass_on()
        with pytest.raises(UsageError, match="was passed to us as 'odd' but is no socket"):
            Listeners(sockets, shelf)

    in_child(body)


def test_a_removed_socket_file_is_bound_anew_at_the_same_number(path: str, shelf: Shelf) -> None:
    with closing(Listeners(Sockets(listeners=(parse_path(path),)), shelf)) as listeners:
        assert listeners.heal() == []
        os.unlink(path)
        assert listeners.heal() == [f"the file of {path} was removed; it was bound anew"]
        assert is_alive(path)
        (listener,) = listeners
        assert listener.fd == 3
        assert listeners.heal() == []
    assert not os.path.exists(path)


def test_a_socket_file_that_another_has_taken_stays_his(path: str, shelf: Shelf) -> None:
    with closing(Listeners(Sockets(listeners=(parse_path(path),)), shelf)) as listeners:
        os.unlink(path)
        with open_unix(path):
            (line,) = listeners.heal()
            assert "was removed or replaced, and somebody is listening on" in line
            (listener,) = listeners
            assert listener.socket.fileno() >= 0, "the old one is kept"
            listeners.close()
            assert is_alive(path)


def test_an_identity_is_of_the_file_and_not_of_its_name(path: str) -> None:
    assert file_identity(path) is None
    Path(path).touch()
    first = file_identity(path)
    other = f"{path}.other"
    Path(other).touch()
    os.rename(other, path)
    assert file_identity(path) not in (None, first)


# --- from one server to the next ---


def kill(listeners: Listeners) -> None:
    """What a server that is killed does to its own."""
    for listener in listeners:
        listener.socket.close()


def test_the_next_server_has_the_same_listeners(port: int, path: str, shelf: Shelf) -> None:
    sockets = Sockets(listeners=(parse_port(f"127.0.0.1:{port}=4"), parse_path(path)))
    first = Listeners(sockets, shelf)
    known = [(listener.fd, listener.key, listener.name, listener.address) for listener in first]
    kill(first)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)  # nobody is there
        shelf.pass_on()
        with closing(Listeners(sockets, shelf)) as second:
            assert known == [
                (listener.fd, listener.key, listener.name, listener.address) for listener in second
            ]
            assert second.heal() == []
            _, unix = second
            unix.socket.accept()[0].close()
    assert not os.path.exists(path)


def test_the_next_server_knows_a_socket_file_that_is_anothers(path: str, shelf: Shelf) -> None:
    sockets = Sockets(listeners=(parse_path(path),))
    kill(Listeners(sockets, shelf))
    os.unlink(path)
    Path(path).write_text("another's")
    shelf.pass_on()
    Listeners(sockets, shelf).close()
    assert Path(path).read_text() == "another's"


def test_what_was_bound_anew_is_what_the_next_server_finds(path: str, shelf: Shelf) -> None:
    sockets = Sockets(listeners=(parse_path(path),))
    first = Listeners(sockets, shelf)
    os.unlink(path)
    assert first.heal()
    kill(first)
    shelf.pass_on()
    with closing(Listeners(sockets, shelf)) as second:
        assert second.heal() == []
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            (listener,) = second
            listener.socket.accept()[0].close()


def test_what_was_not_bound_yet_is_bound_by_the_next_server(path: str, shelf: Shelf) -> None:
    both = Sockets(listeners=(parse_path(path), parse_path(f"{path}.second")))
    kill(Listeners(Sockets(listeners=both.listeners[:1]), shelf))  # before it came to the second
    shelf.pass_on()
    with closing(Listeners(both, shelf)) as listeners:
        assert [listener.address for listener in listeners] == [path, f"{path}.second"]
        assert list(shelf.held) == ["listener/0", "listener/1"]


def test_a_listener_that_can_not_be_kept_is_none(path: str) -> None:
    class Full(Shelf):
        def hold(self, _name: str, _fd: int, _note: str = "") -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(UsageError, match=f"cannot keep {path}: Too many open files"):
        Listeners(Sockets(listeners=(parse_path(path),)), Full())
    assert not os.path.exists(path)
