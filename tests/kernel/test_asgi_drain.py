"""A worker that is told to end: what is under way is answered, and nothing keeps it for ever."""

import asyncio
import signal

import msgspec
import pytest

from sengu.http.asgi import drain, state
from sengu.http.asgi.types import App, Receive, Scope, Send
from tests.kernel.asgi_worker import (
    APPLICATION,
    OPTIONS,
    app,
    begin,
    ends,
    is_silent,
    read_body,
    receive_all,
    receive_until,
    respond,
    serving,
)
from tests.kernel.children import Child

SHORT = msgspec.structs.replace(APPLICATION, grace_seconds=2.0)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def answering(child: Child) -> App:
    """Says hello; `/wait` only after `go`, `/half` between its two halves."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/wait":
                child.tell("in hand")
                await asyncio.to_thread(child.wait_for_go)
                await respond(send)
            case "/half":
                await begin(send, b"one")
                await asyncio.to_thread(child.wait_for_go)
                await send({"type": "http.response.body", "body": b"two"})
            case _:
                await read_body(receive)
                await respond(send)

    return app(handle)


def streaming(child: Child) -> App:
    """A stream without an end, which listens for its client's."""

    async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, b"tick")
        await receive()
        child.tell((await receive())["type"])

    return app(handle)


def deaf(child: Child) -> App:
    """A stream without an end, which listens to nobody."""

    async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send, b"tick")
        await asyncio.Event().wait()

    return app(handle)


def test_an_idle_connection_gets_its_next_answer_and_then_the_end() -> None:
    with serving(answering) as worker, worker.connect() as idle, worker.connect() as waiting:
        idle.sendall(GET)
        receive_until(idle, b"hello")
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        worker.child.wait_to_hear("in hand")
        worker.retire()
        worker.child.go()
        assert b"connection: close" in receive_all(waiting)  # so it drains
        assert is_silent(idle)
        idle.sendall(GET)
        answer = receive_all(idle)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        worker.wait()


def test_a_request_that_was_half_sent_is_answered() -> None:
    with serving(answering) as worker, worker.connect() as half, worker.connect() as waiting:
        half.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        worker.child.wait_to_hear("in hand")
        worker.retire()
        worker.child.go()
        receive_all(waiting)
        half.sendall(b"cd")
        answer = receive_all(half)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        worker.wait()


def test_a_response_that_had_begun_is_finished_and_its_connection_serves_once_more() -> None:
    with serving(answering) as worker, worker.connect() as half:
        half.sendall(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(half, b"one\r\n")
        worker.retire()
        worker.child.go()
        receive_until(half, b"two\r\n0\r\n\r\n")
        half.sendall(GET)
        assert b"connection: close" in receive_all(half)
        worker.wait()


def test_who_has_begun_to_ask_may_still_do_so() -> None:
    with serving(answering) as worker, worker.connect() as begun, worker.connect() as waiting:
        begun.sendall(GET[:10])
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")  # so the other was accepted
        worker.child.wait_to_hear("in hand")
        worker.retire()
        worker.child.go()
        receive_all(waiting)
        begun.sendall(GET[10:])
        assert b"connection: close" in receive_all(begun)
        worker.wait()


def test_a_stopping_worker_hangs_up_on_the_silent_and_waits_for_who_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "_QUIET_SECONDS", 3.0)
    with (
        serving(answering) as worker,
        worker.connect() as silent,
        worker.connect() as begun,
        worker.connect() as beginning,
    ):
        begun.sendall(GET[:10])
        for client in (silent, beginning):
            client.sendall(GET)
            receive_until(client, b"hello")
        worker.signal(signal.SIGQUIT)
        beginning.sendall(GET[:10])
        assert receive_all(silent) == b""
        for client in (begun, beginning):
            client.sendall(GET[10:])
            answer = receive_all(client)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        worker.wait()


def test_a_retiring_worker_leaves_the_queue_to_others() -> None:
    with serving(answering) as worker, worker.connect() as held:
        held.sendall(GET)
        receive_until(held, b"hello")
        worker.retire()
        held.sendall(GET)
        assert b"connection: close" in receive_all(held)
        worker.wait()
        with worker.connect() as late:
            late.sendall(GET)
            with worker.accept() as taken:
                assert taken.recv(65536) == GET


def test_a_stopping_worker_answers_who_is_in_the_queue() -> None:
    def stuck(child: Child) -> App:
        async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
            if scope["path"] == "/wait":
                child.tell("in hand")
                child.wait_for_go()  # the loop stands still, so nobody is accepted
            await respond(send)

        return app(handle)

    with serving(stuck) as worker, worker.connect() as first:
        first.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        worker.child.wait_to_hear("in hand")
        clients = [worker.connect() for _ in range(30)]
        for client in clients:
            client.sendall(GET)
        worker.signal(signal.SIGQUIT)
        worker.child.go()
        for client in clients:
            answer = receive_all(client)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
            client.close()
        worker.wait()


def test_a_stopping_worker_waits_only_a_moment_for_idle_connections() -> None:
    with serving(answering) as worker, worker.connect() as idle:
        idle.sendall(GET)
        receive_until(idle, b"hello")
        worker.stop()
        assert ends(idle)
        worker.wait()


def test_a_retiring_worker_can_be_told_to_stop() -> None:
    with serving(answering) as worker, worker.connect() as idle:
        idle.sendall(GET)
        receive_until(idle, b"hello")
        worker.retire()
        worker.stop()
        assert ends(idle)
        worker.wait()


def test_a_stream_without_end_is_told_before_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "_TELL_PART", 0.9)  # seconds before it is cut
    application = msgspec.structs.replace(APPLICATION, grace_seconds=5.0)
    with serving(streaming, application=application) as worker, worker.connect() as client:
        client.sendall(GET)
        receive_until(client, b"tick\r\n")
        worker.retire()
        worker.child.wait_to_hear("http.disconnect")
        assert ends(client)
        worker.wait()


def test_a_stream_that_does_not_listen_is_cut_when_the_time_is_over() -> None:
    with serving(deaf, application=SHORT) as worker, worker.connect() as client:
        client.sendall(GET)
        receive_until(client, b"tick\r\n")
        worker.retire()
        assert ends(client)
        worker.wait()
        assert not [line for line in worker.child.heard() if line.startswith("stderr")]


def test_a_request_that_hangs_is_cut_and_where_it_hangs_is_told() -> None:
    def hanging(child: Child) -> App:
        async def handle(_scope: Scope, _receive: Receive, _send: Send) -> None:
            child.tell("in hand")
            await asyncio.Event().wait()

        return app(handle)

    with serving(hanging, application=SHORT) as worker, worker.connect() as client:
        client.sendall(GET)
        worker.child.wait_to_hear("in hand")
        worker.retire()
        worker.wait()
        assert any("asyncio.Event().wait()" in line for line in worker.child.heard())


def test_an_idle_connection_does_not_keep_the_worker_beyond_its_time() -> None:
    with serving(answering, OPTIONS, SHORT) as worker, worker.connect() as idle:
        idle.sendall(GET)
        receive_until(idle, b"hello")
        worker.retire()
        worker.wait()
