"""The socket manager: with real sockets and processes, and a shelf in the supervisor's place."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.model.address import Sockets
from sengu.model.observed import Generation, Observed, Phase, Worker
from sengu.posix.loop import Loop
from sengu.server.askers import Askers
from sengu.server.socket_manager import SocketManager
from sengu.wire import sockets as wire
from sengu.work.sockets import SocketManager as Client
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.kernel.shelf import Shelf
from tests.support import needs_root

NOBODY = 65534
TCP = wire.Tcp(0, "127.0.0.1")


class House:
    """One manager after another over the same shelf. We, the test, are worker 1."""

    def __init__(self, shelf: Shelf, loop: Loop, sockets: Sockets | None = None) -> None:
        self.shelf = shelf
        self.loop = loop
        self.sockets = sockets or Sockets()
        self.told: list[str] = []
        self.living = {os.getpid(): "worker/1"}
        self.observed = observe(1)
        self.manager = self.open()

    def open(self) -> SocketManager:
        askers = Askers(os.getpid(), lambda: self.living, lambda: self.observed)
        manager = SocketManager(self.loop, self.shelf, self.sockets, askers, self.told.append)
        manager.start()
        return manager

    def die(self) -> None:
        """The server is killed; its descriptors go."""
        self.manager.leave()
        self.shelf.pass_on()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        sock.connect("\0" + self.manager.name[1:])
        return sock

    def ask(self, data: bytes) -> tuple[wire.Answer | None, int | None]:
        """The answer, None when there is none, and the inode of the socket beside it."""
        with self.connect() as sock:
            sock.send(data)
            return self.hear(sock)

    def hear(self, sock: socket.socket) -> tuple[wire.Answer | None, int | None]:
        heard: list[tuple[bytes, list[int]]] = []

        def look() -> bool:
            try:
                data, fds, _, _ = socket.recv_fds(sock, 65536, 2)
            except BlockingIOError:
                return False
            heard.append((data, fds))
            return True

        run_until(self.loop, look)
        ((data, fds),) = heard
        inodes = [os.fstat(fd).st_ino for fd in fds]
        for fd in fds:
            os.close(fd)
        return wire.decode_answer(data) if data else None, inodes[0] if inodes else None

    def given(self, request: wire.Request) -> int:
        answer, inode = self.ask(wire.encode(request))
        assert isinstance(answer, wire.Given), answer
        assert inode is not None
        return inode

    def refused(self, data: bytes) -> wire.Refused:
        answer, inode = self.ask(data)
        assert isinstance(answer, wire.Refused), answer
        assert inode is None
        return answer


def observe(*generations: int) -> Observed:
    """Worker N is of generation N."""
    return Observed(
        1,
        generations={number: Generation(number) for number in generations},
        workers={number: Worker(number, number, 0, 1, Phase.READY, 0.0) for number in generations},
    )


@pytest.fixture
def house() -> Iterator[House]:
    with nothing_left_open(), Shelf() as shelf, closing(Loop()) as loop:
        house = House(shelf, loop)
        yield house
        house.manager.close()


def generations(house: House) -> list[tuple[int, ...]]:
    return [one.note.generations for one in house.manager.managed]


def test_who_asks_twice_gets_the_same_socket_and_people_are_told_once(house: House) -> None:
    assert house.given(TCP) == house.given(TCP)
    (line,) = house.told
    assert line.startswith("opened 127.0.0.1:")
    assert line.endswith("which generation 1 has asked for")


def test_a_server_that_takes_over_gives_on_what_the_last_one_has_opened(house: House) -> None:
    inode, name = house.given(TCP), house.manager.name
    house.die()
    house.manager = house.open()
    assert house.manager.name == name
    assert house.given(TCP) == inode
    assert generations(house) == [(1,)]


def test_who_asks_while_no_server_is_there_is_answered_by_the_next(house: House) -> None:
    house.die()
    with house.connect() as sock:
        sock.send(wire.encode(TCP))
        house.manager = house.open()
        answer, _ = house.hear(sock)
    assert isinstance(answer, wire.Given)


def test_whoever_was_not_answered_by_a_server_that_was_killed_hears_the_end(house: House) -> None:
    with house.connect() as sock:
        house.loop.run_once(None)  # it is accepted
        house.die()
        house.manager = house.open()
        assert house.hear(sock) == (None, None)


def test_a_socket_stays_until_the_last_generation_that_has_asked_is_gone(house: House) -> None:
    inode = house.given(TCP)
    house.observed = observe(1, 2)
    house.living = {os.getpid(): "worker/2"}
    assert house.given(TCP) == inode
    assert generations(house) == [(1, 2)]
    house.manager.follow(observe(2))
    assert generations(house) == [(2,)]
    house.manager.follow(observe(2, 3))
    assert house.told[1:] == []
    house.manager.follow(observe(3))
    assert generations(house) == []
    assert "the last generation that asked for it is gone" in house.told[1]
    assert not [name for name in house.shelf.held if name.startswith("managed/")]


def test_what_was_asked_for_by_who_is_gone_when_another_server_comes_is_closed(
    house: House,
) -> None:
    house.given(TCP)
    house.die()
    house.manager = house.open()
    house.manager.follow(observe(2))
    assert generations(house) == []


def test_a_fork_server_asks_for_its_generation(house: House) -> None:
    house.observed = observe(7)
    house.living = {os.getpid(): "forkserver/7/abcd"}
    house.given(TCP)
    assert generations(house) == [(7,)]


def test_a_worker_whose_birth_is_not_known_yet_waits_for_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.socket_manager._BIRTH_SECONDS", 20.0)
    house.living = {}
    with house.connect() as sock:
        sock.send(wire.encode(TCP))
        house.loop.run_once(None)
        house.loop.run_once(None)
        house.living = {os.getpid(): "worker/1"}
        answer, _ = house.hear(sock)
    assert isinstance(answer, wire.Given)


@pytest.mark.parametrize("key", ["step/1/0", "log", "worker/none", "worker/9"])
def test_a_child_of_sengu_that_is_no_worker_is_refused(
    house: House, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.socket_manager._BIRTH_SECONDS", 0.01)
    house.living = {os.getpid(): key}
    assert house.refused(wire.encode(TCP)).errno == errno.EPERM
    assert generations(house) == []


def test_a_process_that_sengu_has_not_started_is_refused_unheard(house: House) -> None:
    """Our parent is none of our children's."""
    stranger = Askers(os.getpid(), lambda: {}, lambda: house.observed)
    assert not stranger.is_ours(os.getppid())
    assert stranger.generation_of(os.getppid()) is None


def test_a_process_is_its_workers_by_session_and_by_descent(house: House) -> None:
    """The child is in a session of its own, and ours by descent; a leader's session is enough."""
    with Child(lambda child: child.wait_for_go()) as child:
        askers = Askers(os.getpid(), lambda: house.living, lambda: house.observed)
        assert askers.is_ours(child.pid)
        assert askers.generation_of(child.pid) == 1
        house.living = {child.pid: "worker/1"}
        assert askers.generation_of(child.pid) == 1
        assert askers.generation_of(os.getpid()) is None
        child.go()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "not understood"),
        (b'{"listen":"unix","path":"/\xff"}', "not understood"),
        (b'{"listen":"tcp"}', "not understood"),
        (b'{"listen":"raw","port":1}', "not understood"),
        (b'{"listen":"tcp","port":70000}', "port 70000 is none"),
        (b'{"listen":"tcp","port":-1}', "port -1 is none"),
        (b'{"listen":"tcp","port":1,"host":"localhost"}', "resolve names before you ask"),
        (b'{"listen":"unix","path":"app.sock"}', "no absolute path"),
        (b'{"listen":"unix","path":"/a\\u0000b"}', "NUL"),
        (b'{"listen":"unix","path":"/%s"}' % (b"x" * 200), "bytes long"),
        (b'{"listen":"unix","path":"/no/such/place"}', "no such directory"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_the_reason(
    house: House, data: bytes, words: str
) -> None:
    assert words in house.refused(data).problem


def test_an_address_in_use_is_told_with_the_number_of_the_error(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = house.refused(wire.encode(wire.Tcp(port, "127.0.0.1")))
    assert refused.errno == errno.EADDRINUSE
    assert f"cannot bind 127.0.0.1:{port}: address already in use" in refused.problem


def test_descriptors_that_come_with_a_request_are_closed(house: House) -> None:
    with house.connect() as sock, open(os.devnull) as null:
        socket.send_fds(sock, [wire.encode(TCP)], [null.fileno()] * 200)
        answer, _ = house.hear(sock)
    assert isinstance(answer, wire.Given)  # and the fixture looks for what is left open


def test_who_says_nothing_holds_nobody_up(house: House) -> None:
    silent = [house.connect() for _ in range(100)]
    assert house.given(TCP)
    for sock in silent:
        sock.close()
    house.given(TCP)


def test_a_removed_socket_file_is_bound_anew_and_a_replaced_one_is_left(
    house: House, free_path: Path
) -> None:
    path = free_path / "app.sock"
    request = wire.Unix(str(path))
    first = house.given(request)
    assert house.given(request) == first
    path.unlink()
    second = house.given(request)
    assert second != first
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert "somebody is listening" in house.refused(wire.encode(request)).problem
    house.manager.follow(observe())
    assert path.exists()


def test_the_file_of_a_socket_goes_with_it_under_another_server_too(
    house: House, free_path: Path
) -> None:
    path = free_path / "app.sock"
    house.given(wire.Unix(str(path)))
    house.die()
    house.manager = house.open()
    assert path.exists()
    house.manager.follow(observe())
    assert not path.exists()


def test_a_worker_of_another_user_cannot_have_what_root_has_opened(
    house: House, free_path: Path
) -> None:
    needs_root()
    house.given(wire.Tcp(85, "127.0.0.1"))
    name = house.manager.name
    free_path.chmod(0o755)

    def ask(child: Child) -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            Client(name).listen_tcp("127.0.0.1", 85)
        except PermissionError as error:
            child.tell(f"refused {error.strerror}")

    with Child(ask) as child:
        run_until(house.loop, lambda: "refused" in str(child.heard()))
        assert "--allow-listen 127.0.0.1:85" in child.wait_to_hear("refused")


def test_the_client_asks_again_when_a_server_was_lost_and_in_many_threads(house: House) -> None:
    found: list[socket.socket] = []
    client = Client(house.manager.name)
    threads = [
        threading.Thread(target=lambda: found.append(client.listen_tcp("127.0.0.1", 0, 50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    house.loop.run_once(None)  # some are accepted, and lost
    house.die()
    house.manager = house.open()
    run_until(house.loop, lambda: len(found) == len(threads))
    for thread in threads:
        thread.join()
    assert len({os.fstat(sock.fileno()).st_ino for sock in found}) == 1
    for sock in found:
        sock.close()


def test_the_client_gives_up_in_time_and_says_so(house: House) -> None:
    with pytest.raises(TimeoutError, match=r"not answered within 0\.2 seconds"):
        Client(house.manager.name, timeout_seconds=0.2).listen_tcp("127.0.0.1", 0)


def test_the_client_of_an_instance_that_is_gone_says_so(house: House) -> None:
    with pytest.raises(ConnectionRefusedError, match="is gone; start it again"):
        Client(f"{house.manager.name}x").listen_udp("127.0.0.1", 0)


def test_there_is_an_end_to_how_many_there_can_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.managed._MOST", 1)
    house.given(TCP)
    assert "all there can be" in house.refused(wire.encode(wire.Udp(0, "127.0.0.1"))).problem


def test_more_visitors_than_there_is_room_for_wait_outside(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.socket_manager._MOST_VISITORS", 2)
    silent = [house.connect(), house.connect()]
    house.loop.run_once(None)
    with house.connect() as third:
        third.send(wire.encode(TCP))
        house.loop.run_once(house.loop.now())
        house.loop.run_once(house.loop.now())
        for sock in silent:
            sock.close()
        answer, _ = house.hear(third)
    assert isinstance(answer, wire.Given)


@pytest.mark.parametrize("is_open", [False, True])
def test_a_socket_that_cannot_be_kept_is_not_given_and_the_next_who_asks_gets_it(
    house: House, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    house.observed = observe(1, 2)
    if is_open:
        house.given(TCP)
        house.living = {os.getpid(): "worker/2"}

    def hold(_name: str, _fd: int, _note: str = "") -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(house.shelf, "hold", hold)
        refused = house.refused(wire.encode(TCP))
    assert refused.errno == errno.EMFILE
    assert "cannot keep 127.0.0.1:0: Too many open files" in refused.problem
    house.given(TCP)


def test_who_asks_for_a_socket_that_is_just_being_closed_gets_a_new_one(
    house: House, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.server.socket_manager._CLOSE_SECONDS", 20.0)
    request = wire.Tcp(port, "127.0.0.1")
    house.given(request)
    (managed,) = house.manager.managed
    held = managed.listener.socket.dup()  # as the supervisor's, which has not heard of it yet
    house.observed = observe(2)
    house.living = {os.getpid(): "worker/2"}
    house.manager.follow(house.observed)
    with house.connect() as sock:
        sock.send(wire.encode(request))
        house.loop.call_at(house.loop.now() + 0.1, held.close)
        answer, _ = house.hear(sock)
    assert answer == wire.Given(f"127.0.0.1:{port}")
