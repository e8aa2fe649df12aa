"""The control API's client, and servers that die while it talks to them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sengu.control import api, asking
from sengu.control.asking import NoAnswerError, WentAwayError
from sengu.control.client import ControlClient
from sengu.errors import NotRunningError, SenguError
from tests.unit.fake_instance import NOT_READ, FakeInstance, record

RECORDS = [record(number, "worker_ready", worker=number) for number in (41, 42, 43)]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def web(free_path: Path) -> Iterator[FakeInstance]:
    with closing(FakeInstance(free_path / "x.sock")) as instance:
        yield instance


def length_of_answer(web: FakeInstance, request: str) -> int:
    """How many bytes come back; the connection is the caller's to end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(web.path))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return sum(len(piece) for piece in iter(lambda: sock.recv(1 << 16), b""))


def test_wherever_an_answer_is_cut_off_the_question_is_asked_again(web: FakeInstance) -> None:
    length = length_of_answer(web, f"GET {api.STATUS_PATH}")
    assert length > 500
    for cut in range(NOT_READ, length):
        web.cuts = [cut]
        assert ControlClient(str(web.path)).status() == web.statuses[0], cut
        assert not web.cuts


def test_a_question_is_asked_through_many_deaths(web: FakeInstance) -> None:
    web.cuts = [0, NOT_READ, 20, 100, 0]
    assert ControlClient(str(web.path)).scale(3) == 3


@pytest.mark.parametrize("path", [api.RELOAD_PATH, api.UPGRADE_PATH])
def test_what_must_not_be_done_twice_is_asked_for_under_one_name(
    web: FakeInstance, path: str
) -> None:
    control = ControlClient(str(web.path))
    ask = control.reload if path == api.RELOAD_PATH else control.upgrade
    web.cuts = [0, 30]
    assert ask().last_event == 40
    ask()
    first, second, third, other = web.asked
    assert first == second == third != other
    assert first.startswith(f"POST {path} ")


@pytest.mark.parametrize("follow", [True, False])
def test_wherever_a_stream_is_cut_off_no_event_is_lost_or_repeated(
    web: FakeInstance, follow: bool
) -> None:
    web.records, web.stays_open = RECORDS, True
    length = length_of_answer(web, f"GET {api.EVENTS_PATH}?follow=false")
    for cut in range(NOT_READ, length):
        web.cuts = [cut, cut]
        with ControlClient(str(web.path)).events(None, follow) as stream:
            assert [stream.read(None) for _ in RECORDS] == RECORDS, cut
            assert follow or stream.read(None) is None


def test_who_is_cut_off_before_the_first_new_event_has_it_all_the_same(web: FakeInstance) -> None:
    length = length_of_answer(web, f"GET {api.EVENTS_PATH}?follow=false")
    web.records, web.stays_open = RECORDS, True
    web.cuts = [length - len("0\r\n\r\n")]
    with ControlClient(str(web.path)).events(None, follow=True) as stream:
        assert stream.read(None) == RECORDS[0]
    assert web.asked[1:] == [
        f"GET {api.EVENTS_PATH}?follow=true",
        f"GET {api.EVENTS_PATH}?follow=true&since=40",
    ]


def test_a_stream_ends_when_nobody_listens_any_more(web: FakeInstance) -> None:
    web.records = RECORDS
    with ControlClient(str(web.path)).events(40, follow=True) as stream:
        assert list(stream) == RECORDS
    assert not web.path.exists()


def test_a_stream_ends_where_a_socket_is_left_that_nobody_listens_on(web: FakeInstance) -> None:
    web.stays_open = True
    with ControlClient(str(web.path)).events(40, follow=True) as stream:
        web.close()
        assert stream.read(None) is None
    assert web.path.exists()


def test_a_wait_for_events_ends_in_time_though_the_server_is_gone(free_path: Path) -> None:
    """The supervisor listens, and nobody accepts."""
    path = free_path / "x.sock"
    with closing(FakeInstance(path)) as web, socket.socket(socket.AF_UNIX) as queue:
        web.stays_open = True
        with ControlClient(str(path)).events(40, follow=True) as stream:
            path.unlink()
            queue.bind(str(path))
            queue.listen()
            web.ended.set()
            with pytest.raises(NoAnswerError, match=r"within 0\.1 s"):
                stream.read(0.1)


def test_a_question_waits_in_the_queue_for_the_next_server(free_path: Path) -> None:
    path = free_path / "x.sock"
    answer = b'HTTP/1.1 202 \r\nContent-Length: 13\r\n\r\n{"workers":3}'
    with socket.socket(socket.AF_UNIX) as queue:
        queue.bind(str(path))
        queue.listen()

        def serve() -> None:
            queue.accept()[0].close()
            with queue.accept()[0] as taken:
                received = b""
                while not received.endswith(b"}"):  # closed with a part unread, it would reset
                    received += taken.recv(1 << 16)
                taken.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        assert ControlClient(str(path)).scale(3) == 3
        server.join()


def test_an_instance_that_ends_while_it_is_asked_is_told_from_one_that_never_was(
    web: FakeInstance,
) -> None:
    control = ControlClient(str(web.path))

    def die(_body: bytes) -> msgspec.Struct:
        web.die()
        return api.StopAccepted()

    web.reactions[api.STOP_PATH] = die
    web.cuts = [0]
    with pytest.raises(WentAwayError, match="went away while being asked"):
        control.stop()
    with pytest.raises(NotRunningError, match="no instance listens") as raised:
        control.stop()
    assert not isinstance(raised.value, WentAwayError)


def test_servers_that_only_ever_die_are_given_up(web: FakeInstance) -> None:
    web.cuts = [0] * 100_000
    # The end of the time may come between two attempts, or in the midst of one.
    words = r"let go of us whenever it was asked, for 0\.5 s|has not answered within 0\.5 s"
    with pytest.raises(NoAnswerError, match=words):
        ControlClient(str(web.path), 0.5).status()
    web.cuts.clear()


@pytest.mark.parametrize("answer", [b"220 smtp\r\n", b"HTTP/1.1 2x0 \r\n\r\n", b"\n"])
def test_who_speaks_another_language_is_asked_once(free_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(free_path / "x.sock"))
        stranger.listen()

        def speak() -> None:
            with stranger.accept()[0] as taken:
                taken.sendall(answer)
                taken.recv(1 << 16)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(SenguError, match="does not speak the control protocol"):
            ControlClient(str(free_path / "x.sock")).status()
        thread.join()
