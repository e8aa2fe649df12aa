"""What an ASGI worker does not take: malformed requests, too much, too slowly."""

import asyncio
import contextlib
import select
import socket

import msgspec
import pytest

from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.model.web import Limits, Timeouts
from tests.kernel.asgi_worker import (
    OPTIONS,
    app,
    ends,
    read_body,
    receive_all,
    receive_until,
    respond,
    serving,
)
from tests.kernel.children import Child

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
QUICK = Timeouts(header_seconds=0.2, body_seconds=0.2, keep_alive_seconds=0.2)

MALFORMED = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: b\r\n\r\n", 400),
    "malformed Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "absolute form": (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority form": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no path": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL in the path": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL in a field": (GET + b"X: a\0b\r\n\r\n", 400),
    "folded field": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "space before the colon": (GET + b"X : a\r\n\r\n", 400),
    "field without a name": (GET + b": a\r\n\r\n", 400),
    "field without a colon": (GET + b"X\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare CR": (GET + b"X: a\rY: b\r\n\r\n", 400),
    "length twice": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "length with a sign": (POST + b"Content-Length: +1\r\n\r\na", 400),
    "length in a list": (POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    "empty length": (POST + b"Content-Length: \r\n\r\n", 400),
    "length and coding": (
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "unknown coding first": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "unknown coding in a field of its own": (
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "CONNECT to a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "an asterisk to get": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "unknown expectation": (POST + b"Expect: tea\r\nContent-Length: 0\r\n\r\n", 417),
    "malformed chunk size": (CHUNKED + b"g\r\n", 400),
    "chunk size with 0x": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "endless chunk size": (CHUNKED + b"f" * 17 + b"\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    "bare LF in a chunk": (CHUNKED + b"1\na\n0\n\n", 400),
}


def _echo(child: Child) -> App:
    async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, await read_body(receive))
        child.tell("answered")

    return app(handle)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_is_refused_and_the_connection_closed(kind: str) -> None:
    data, status = MALFORMED[kind]
    with serving(_echo) as worker, worker.connect() as client:
        client.sendall(data)
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"connection: close\r\n" in answer
        assert answer.count(b"\r\n\r\n") == 1
        assert not [line for line in worker.child.heard() if line.startswith("stderr")]


@pytest.mark.parametrize("split", [True, False])
def test_a_malformed_request_is_refused_after_those_before_it_were_answered(split: bool) -> None:
    with serving(_echo) as worker, worker.connect() as client:
        good = POST + b"Content-Length: 2\r\n\r\nok"
        if split:
            client.sendall(good)
            client.sendall(b"\0\r\n\r\n")
        else:
            client.sendall(good + good + b"\0\r\n\r\n")
        answer = receive_all(client)
        count = 1 if split else 2
        assert answer.count(b"HTTP/1.1 200 OK") == count
        assert answer.split(b"\r\n\r\nok")[-1].startswith(b"HTTP/1.1 400 ")


LIMITS = Limits(request_line_bytes=100, header_fields=5, header_field_bytes=200, body_bytes=1000)
TOO_MUCH = {
    "line": (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "field": (GET + b"X: " + b"a" * 200 + b"\r\n\r\n", 431),
    "fields": (GET + b"X: a\r\n" * 5 + b"\r\n", 431),
    "announced body": (POST + b"Content-Length: 1001\r\n\r\n", 413),
    "chunked body": (CHUNKED + b"3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n", 413),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_is_beyond_a_limit_is_refused(kind: str) -> None:
    data, status = TOO_MUCH[kind]
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, limits=LIMITS)) as worker,
        worker.connect() as client,
    ):
        client.sendall(data)
        assert receive_all(client).startswith(b"HTTP/1.1 %d " % status)


def test_what_is_within_the_limits_is_served() -> None:
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, limits=LIMITS)) as worker,
        worker.connect() as client,
    ):
        client.sendall(POST + b"Content-Length: 1000\r\n\r\n" + b"a" * 1000)
        receive_until(client, b"a" * 1000)


@pytest.mark.parametrize("start", [b"GET /", GET + b"X: ", CHUNKED + b"0\r\nX: ", CHUNKED + b"1;"])
def test_a_head_or_trailer_without_an_end_is_refused_before_it_fills_the_memory(
    start: bytes,
) -> None:
    with serving(_echo) as worker, worker.connect() as client:
        client.setblocking(False)
        client.send(start)
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not select.select([client], [], [], 0)[0]:
                select.select([client], [client], [])
                with contextlib.suppress(BlockingIOError):
                    sent += client.send(b"a" * 4096)
        assert sent < 16 << 20


def test_a_refusal_is_not_lost_though_the_client_sends_on() -> None:
    limits = Limits(body_bytes=10)
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, limits=limits)) as worker,
        worker.connect() as client,
    ):
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        for _ in range(100):
            client.sendall(b"a" * 10_000)
        assert receive_all(client).startswith(b"HTTP/1.1 413 ")


def test_a_later_head_has_no_more_time_than_the_first() -> None:
    timeouts = msgspec.structs.replace(QUICK, keep_alive_seconds=60.0)
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, timeouts=timeouts)) as worker,
        worker.connect() as client,
    ):
        client.sendall(GET + b"\r\n")
        receive_until(client, b"\r\n\r\n")
        client.sendall(GET)
        assert receive_all(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [b"", b"G", GET])
def test_a_head_that_does_not_come_in_time_ends_the_connection(start: bytes) -> None:
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.sendall(start)
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 408 ") if start else answer == b""


def test_a_head_that_drips_is_not_given_more_time() -> None:
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.sendall(GET)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not select.select([client], [], [], 0.05)[0]:
                client.sendall(b"X: y\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_stops_coming_is_refused_and_the_application_told() -> None:
    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, _send: Send) -> None:
            child.tell((await receive())["type"])
            child.tell((await receive())["type"])

        return app(handle)

    with (
        serving(make, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.sendall(POST + b"Content-Length: 10\r\n\r\nabc")
        assert receive_all(client).startswith(b"HTTP/1.1 408 ")
        worker.child.wait_to_hear("http.disconnect")


def test_an_application_that_takes_its_time_to_read_is_not_the_clients_fault() -> None:
    size = 10_000_000

    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
            child.tell("in hand")
            await asyncio.to_thread(child.wait_for_go)
            await respond(send, b"%d" % len(await read_body(receive)))

        return app(handle)

    timeouts = msgspec.structs.replace(QUICK, body_seconds=0.1)
    with (
        serving(make, msgspec.structs.replace(OPTIONS, timeouts=timeouts)) as worker,
        worker.connect() as client,
        worker.connect() as clock,
    ):
        client.setblocking(False)
        client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        worker.child.wait_to_hear("in hand")
        left = size
        with contextlib.suppress(BlockingIOError):
            while left:
                left -= client.send(b"a" * min(left, 65536))
        assert ends(clock)  # so deadlines have passed
        client.setblocking(True)
        worker.child.go()
        client.sendall(b"a" * left)
        receive_until(client, b"%d" % size)


def test_a_connection_that_rests_too_long_is_closed() -> None:
    with (
        serving(_echo, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.sendall(GET + b"\r\n")
        receive_until(client, b"\r\n\r\n")
        assert ends(client)


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
            await respond(send, b"a" * 50_000_000)
            await receive()
            child.tell((await receive())["type"])

        return app(handle)

    with (
        serving(make, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(GET + b"\r\n")
        worker.child.wait_to_hear("http.disconnect")
        worker.retire()
        worker.wait()


def test_a_client_that_takes_something_has_time_though_nothing_more_can_be_sent_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(child: Child) -> App:
        left = iter((2, 1, 1))

        def untaken(_fd: int) -> int:
            child.tell("looked")
            return next(left)

        monkeypatch.setattr("sengu.http.asgi.connection.untaken", untaken)

        async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
            await respond(send, b"a" * 50_000_000)

        return app(handle)

    with (
        serving(make, msgspec.structs.replace(OPTIONS, timeouts=QUICK)) as worker,
        worker.connect() as client,
    ):
        client.sendall(GET + b"\r\n")
        worker.child.wait_to_hear("looked")
        worker.retire()  # it waits for its client as long as that may take
        worker.wait()
        assert worker.child.heard().count("looked") == 3


def test_a_client_that_reads_slowly_is_served() -> None:
    size = 8_000_000

    def make(_child: Child) -> App:
        async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
            await respond(send, b"a" * size)

        return app(handle)

    timeouts = msgspec.structs.replace(QUICK, body_seconds=2.0)
    with (
        serving(make, msgspec.structs.replace(OPTIONS, timeouts=timeouts)) as worker,
        worker.connect() as client,
    ):
        client.sendall(GET + b"Connection: close\r\n\r\n")
        taken = 0
        for _ in range(3):
            with worker.connect() as clock:
                assert ends(clock)  # so time goes by, more than the deadline in all
            taken += len(client.recv(2_000_000))
        assert taken + len(receive_all(client)) > size
