"""How connections and workers end: timeouts, limits, threads, drains."""

import contextlib
import os
import resource
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sengu.http.engine import WsgiApp
from sengu.model.application import Application, Wear
from sengu.model.web import Limits, Timeouts, WebOptions
from sengu.worker.runtime import Stopping
from tests.kernel.http_worker import Environ, Worker, make_memory, make_runtime, serving

TEXT = ("Content-Type", "text/plain")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def hello(_environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [TEXT])
    return [b"hello"]


class Gate:
    """An application that waits, for requests to /slow, until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.entered.release()
            assert self.open.acquire(timeout=20)
        return hello(environ, start_response)


def test_a_head_that_does_not_come_is_a_408() -> None:
    options = WebOptions("tests:app", timeouts=Timeouts(header_seconds=0.2))
    with serving(hello, options) as worker:
        first, later = worker.connect(), worker.connect()
        assert later.get().status == 200
        first.send(GET[:10])
        later.send(GET[:10])
        assert first.answer().status == later.answer().status == 408
        assert first.rest() == later.rest() == b""


def test_a_head_that_drips_has_no_more_time_than_others() -> None:
    options = WebOptions("tests:app", timeouts=Timeouts(header_seconds=0.5))
    with serving(hello, options) as worker:
        client = worker.connect()
        client.send(GET[:-2])
        while not select.select([client.socket], [], [], 0.1)[0]:
            client.send(b"X: y\r\n")
        assert client.answer().status == 408


def test_who_says_nothing_is_closed_without_a_word() -> None:
    timeouts = Timeouts(header_seconds=0.2, keep_alive_seconds=0.2)
    with serving(hello, WebOptions("tests:app", timeouts=timeouts)) as worker:
        silent, idle = worker.connect(), worker.connect()
        assert idle.get().status == 200
        assert silent.rest() == idle.rest() == b""


def test_a_client_that_does_not_read_is_let_go() -> None:
    def app(_environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [TEXT])
        return [b"x" * 20_000_000]

    options = WebOptions("tests:app", timeouts=Timeouts(body_seconds=1.5))
    with serving(app, options) as worker:
        lazy = worker.connect()
        lazy.send(GET)
        assert worker.connect().get().status == 200  # after the lazy one was let go
        with pytest.raises((EOFError, ConnectionResetError)):
            lazy.answer()


def test_a_client_that_takes_something_has_time_though_nothing_more_can_be_sent_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter((3, 2, 1, 1))
    monkeypatch.setattr("sengu.http.connection.untaken", lambda _fd: next(left))

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/hello":
            return hello(environ, start_response)
        start_response("200 OK", [TEXT])
        return [b"x" * 50_000_000]

    with serving(app, WebOptions("tests:app", timeouts=Timeouts(body_seconds=0.1))) as worker:
        lazy = worker.connect()
        lazy.send(GET)
        assert worker.connect().get("/hello").status == 200  # after the lazy one was let go
        assert list(left) == []
        with pytest.raises((EOFError, ConnectionResetError)):
            lazy.answer()


def test_a_slow_reader_gets_all_and_is_progress() -> None:
    beats: list[float] = []

    def app(_environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for _ in range(4):
            beats.append(workers[0].runtime.board.lanes[0].read().progress_at)
            yield b"x" * 5_000_000

    workers: list[Any] = []
    with serving(app) as worker:
        workers.append(worker)
        assert len(worker.connect().get().body) == 20_000_000
    assert beats == sorted(beats)
    assert beats[-1] > beats[0]


def test_at_the_limit_of_connections_the_others_wait_until_there_is_room() -> None:
    options = WebOptions("tests:app", limits=Limits(connections=3))
    with serving(hello, options) as worker:
        # One by one: the kernel hands over who says nothing for a second, in any order.
        clients = [worker.connect() for _ in range(3)]
        for client in clients:
            assert client.get().status == 200
        late = worker.connect()
        late.send(GET)
        for _ in range(2):
            worker.connect()
        late.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.answer()
        clients[0].socket.close()
        late.socket.settimeout(20)
        assert late.answer().status == 200


def test_without_descriptors_the_worker_waits_for_better_times() -> None:
    with serving(hello) as worker:
        established = worker.connect()
        assert established.get().status == 200
        late = worker.connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        held = []
        try:
            with contextlib.suppress(OSError):  # until there is none left
                while True:
                    held.append(os.dup(0))
            late.send(GET)
            assert established.get().status == 200
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert late.answer().status == 200


def test_threads_answer_at_the_same_time() -> None:
    gate = Gate()
    with serving(gate, WebOptions("tests:app", threads=3)) as worker:
        slow = [worker.connect() for _ in range(2)]
        for client in slow:
            client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert gate.entered.acquire(timeout=20)
        busy = [lane.read() for lane in worker.runtime.board.lanes]
        assert sorted(line.request for line in busy if line.is_busy) == ["GET /slow"] * 2
        client = worker.connect()
        for _ in range(3):
            assert client.get().body == b"hello"
        client.send(GET * 50)
        assert [client.answer().body for _ in range(50)] == [b"hello"] * 50
        gate.open.release(2)
        assert [one.answer().body for one in slow] == [b"hello"] * 2
        assert slow[0].get().body == b"hello"


def test_a_worn_out_worker_says_so_once_and_goes_on() -> None:
    with serving(hello, wear=Wear(max_requests=10, jitter=0.2)) as worker:
        client = worker.connect()
        for number in range(30):
            assert bool(worker.worn) <= (number >= 8)
            assert client.get().status == 200
        assert worker.worn == ["max-requests 10"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_retiring_worker_answers_once_more_and_closes(threads: int) -> None:
    with serving(hello, WebOptions("tests:app", threads=threads)) as worker:
        idle, pipelining, half = worker.connect(), worker.connect(), worker.connect()
        for client in (idle, pipelining, half):
            assert "connection" not in client.get().fields
        half.send(GET[:10])
        worker.runtime.stop(Stopping.RETIRE)
        pipelining.send(GET * 3)
        answer = pipelining.answer()
        assert answer.fields["connection"] == "close"
        assert pipelining.rest() == b""
        queued = worker.connect()
        queued.send(GET)
        half.send(GET[10:])
        assert half.answer().fields["connection"] == "close"
        assert half.rest() == b""
        assert worker.is_running()
        assert idle.get().fields["connection"] == "close"
        assert idle.rest() == b""
        for client in (pipelining, half, idle):
            client.socket.close()
        worker.wait()
        assert_is_left(worker, GET)


def assert_is_left(worker: Worker, request: bytes) -> None:
    """To those who come after it: who has sent that."""
    accepted, _ = worker.listener.accept()
    with accepted:
        assert accepted.recv(1000) == request


def test_a_worker_that_hears_at_once_of_a_client_and_of_its_end_takes_nobody() -> None:
    gate = Gate()
    with serving(gate) as worker:
        slow = worker.connect()
        slow.send(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert gate.entered.acquire(timeout=20)
        worker.runtime.stop(Stopping.RETIRE)
        worker.connect().send(GET)
        gate.open.release()
        assert slow.answer().body == b"hello"
        worker.wait()
        assert_is_left(worker, GET)


def test_a_retiring_worker_ends_when_its_time_is_up() -> None:
    with serving(hello, grace_seconds=1.0) as worker:
        idle = worker.connect()
        assert idle.get().status == 200
        worker.runtime.stop(Stopping.RETIRE)
        worker.wait()
        assert idle.rest() == b""


def test_a_stopping_worker_serves_its_queue_and_hangs_up_on_the_silent() -> None:
    gate = Gate()
    with serving(gate) as worker:
        slow, idle = worker.connect(), worker.connect()
        assert idle.get().status == 200
        slow.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert gate.entered.acquire(timeout=20)
        queued = [worker.connect() for _ in range(10)]
        for client in queued:
            client.send(GET)
        worker.runtime.stop(Stopping.STOP)
        gate.open.release()
        assert slow.answer().body == b"hello"
        for client in queued:
            answer = client.answer()
            assert (answer.body, answer.fields["connection"]) == (b"hello", "close")
            assert client.rest() == b""
            client.socket.close()
        slow.socket.close()
        assert idle.rest() == b""
        worker.wait()


def test_who_connects_and_says_nothing_is_handed_over_after_a_while() -> None:
    """The kernel keeps a connection until its client speaks, but not for ever."""
    with serving(hello) as worker:
        silent = worker.connect()
        lane = worker.runtime.board.lanes[0]
        assert select.select([silent.socket], [], [], 0.0)[0] == []
        until = time.monotonic() + 20
        while not lane.connections:
            assert time.monotonic() < until, "the kernel keeps it for good"
            select.select([silent.socket], [], [], 0.05)
        assert silent.get().status == 200


def test_a_full_worker_leaves_who_comes_to_those_that_have_room() -> None:
    options = WebOptions("tests:app", limits=Limits(connections=1))
    application = Application(engine="sengu.http.engine", target="tests:app", lanes=1)
    with serving(hello, options) as full:
        assert full.connect().get().status == 200
        loaded = WsgiApp(hello, None, options, None)
        memory = make_memory(application)
        runtime = make_runtime(application, full.listener, memory)
        other = Worker(loaded, runtime, full.listener, memory)
        other.start()
        assert full.connect().get().status == 200
        other.runtime.stop(Stopping.STOP)
        other.wait()


def test_a_stopping_worker_hangs_up_on_whose_answer_was_on_its_way() -> None:
    gate = Gate()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "12")])
        yield b"begun: "
        yield from gate(environ, lambda *_: None) if environ["PATH_INFO"] != "/" else [b"hello"]

    with serving(app, WebOptions("tests:app", threads=2), grace_seconds=60.0) as worker:
        client, silent = worker.connect(), worker.connect()
        assert silent.get().status == 200
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert gate.entered.acquire(timeout=20)
        worker.runtime.stop(Stopping.STOP)
        assert silent.rest() == b""
        gate.open.release()
        assert client.answer().body == b"begun: hello"
        assert client.rest() == b""
        worker.wait()


def test_what_the_application_keeps_in_the_environ_is_gone_with_the_answer() -> None:
    class Kept:
        pass

    kept = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        environ["kept"] = one = Kept()
        kept.append(weakref.ref(one))
        return hello(environ, start_response)

    with serving(app) as worker:
        client = worker.connect()
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        for _ in range(2):
            assert client.ask(post).status == 200
        assert client.get().status == 200  # it is answered after the end of the others
        assert [one() for one in kept[:2]] == [None, None]


def test_an_application_that_leaves_nothing_of_the_environ_costs_its_own_answer() -> None:
    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        environ.clear()
        raise ValueError

    with serving(app) as worker:
        assert worker.connect().get().status == 500
    assert not worker.runtime.board.lanes[0].read().is_busy
