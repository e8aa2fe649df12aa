"""Bodies of requests: streamed, never ahead of the application, and never a way into the next."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sengu.model.web import Limits, Timeouts, WebOptions
from tests.kernel.http_worker import App, Environ, serving

TEXT = ("Content-Type", "text/plain")
POST = "POST {} HTTP/1.1\r\nHost: x\r\n"


def echo(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [TEXT])
    return [body]


def deaf(_environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [TEXT])
    return [b"deaf"]


def chunked(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


def post(body: bytes, *fields: str, path: str = "/") -> bytes:
    lines = [POST.format(path).removesuffix("\r\n"), *fields, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 16, (1 << 16) + 1, 3_000_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_body_arrives_whole_and_the_connection_stays(size: int, threads: int) -> None:
    data = bytes(number % 251 for number in range(size))
    with serving(echo, WebOptions("tests:app", threads=threads)) as worker:
        client = worker.connect()
        for _ in range(2):
            sender = threading.Thread(target=client.send, args=(post(data),))
            sender.start()
            assert client.answer().body == data
            sender.join()


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_a_chunked_body_arrives_whole_and_the_connection_stays(size: int) -> None:
    data = bytes(number % 251 for number in range(200_000 if size > 1 else 20_000))
    request = (
        POST.format("/").encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(data, size)
    )
    with serving(echo) as worker:
        client = worker.connect()
        for _ in range(2):
            sender = threading.Thread(target=client.send, args=(request,))
            sender.start()
            assert client.answer().body == data
            sender.join()


READERS: dict[str, Callable[[Any], bytes]] = {
    "read()": lambda stream: stream.read(),
    "read(None)": lambda stream: stream.read(None),
    "read(7)": lambda stream: b"".join(iter(lambda: stream.read(7), b"")),
    "read(100000)": lambda stream: b"".join(iter(lambda: stream.read(100_000), b"")),
    "read(0)": lambda stream: stream.read(0) + stream.read(),
    "readline()": lambda stream: b"".join(iter(stream.readline, b"")),
    "readline(5)": lambda stream: b"".join(iter(lambda: stream.readline(5), b"")),
    "readlines()": lambda stream: b"".join(stream.readlines()),
    "readlines(10)": lambda stream: b"".join(stream.readlines(10) + stream.readlines()),
    "iteration": b"".join,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_each_way_to_read_gives_the_body_and_then_nothing(reader: str, is_chunked: bool) -> None:
    data = b"".join(b"line %d\n" % number for number in range(20_000)) + b"the end"
    lines: list[bytes] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        stream = environ["wsgi.input"]
        if environ["PATH_INFO"] == "/lines":
            lines.extend(stream)
        else:
            lines.append(READERS[reader](stream))
        assert stream.read() == stream.read(5) == stream.readline() == b""
        assert stream.readlines() == list(stream) == []
        start_response("200 OK", [TEXT])
        return [b"x"]

    request = post(data)
    if is_chunked:
        head = POST.format("/").encode() + b"Transfer-Encoding: chunked\r\n\r\n"
        request = head + chunked(data, 1234)
    with serving(app) as worker:
        client = worker.connect()
        assert client.ask(request).status == 200
        assert lines == [data]
        lines.clear()
        assert client.ask(post(data, path="/lines")).status == 200
        assert lines == data.splitlines(keepends=True)


def test_a_large_body_is_not_taken_in_ahead_of_the_application() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        begun.set()
        assert go_on.wait(20)
        digest = hashlib.sha256()
        for piece in iter(lambda: environ["wsgi.input"].read(1 << 16), b""):
            digest.update(piece)
        start_response("200 OK", [TEXT])
        return [digest.hexdigest().encode()]

    size = 200_000_000
    with serving(app) as worker:
        client = worker.connect()
        client.send(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        client.socket.setblocking(False)
        sent = 0
        piece = b"x" * (1 << 20)
        while True:  # until the worker has 64 KiB, and the kernel what it buffers
            try:
                sent += client.socket.send(piece[: size - sent])
            except BlockingIOError:
                if begun.is_set():
                    break
        assert sent < 50_000_000
        go_on.set()
        client.socket.settimeout(20)
        while sent < size:
            sent += client.socket.send(piece[: size - sent])
        assert client.answer().body.decode() == hashlib.sha256(b"x" * size).hexdigest()


def test_the_client_is_told_to_go_on_when_the_application_reads() -> None:
    with serving(echo) as worker:
        client = worker.connect()
        client.send(
            POST.format("/").encode() + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.answer().status == 100
        client.send(b"abc")
        assert client.answer().body == b"abc"
        assert client.ask(post(b"next")).body == b"next"


def test_it_is_not_told_so_when_the_application_does_not_read() -> None:
    with serving(deaf) as worker:
        client = worker.connect()
        client.send(
            POST.format("/").encode() + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = client.answer()
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert client.rest() == b""


def test_it_is_not_told_so_in_the_midst_of_the_answer() -> None:
    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [TEXT])
        yield b"begun:"
        yield environ["wsgi.input"].read()

    with serving(app) as worker:
        client = worker.connect()
        client.send(
            POST.format("/").encode() + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        client.send(b"abc")
        assert client.answer().body == b"begun:abc"


def test_who_sends_the_body_at_once_is_not_told_to_go_on() -> None:
    with serving(echo) as worker:
        client = worker.connect()
        assert client.ask(post(b"abc", "Expect: 100-continue")).body == b"abc"


@pytest.mark.parametrize("app", [deaf, echo])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_small_body_that_nobody_reads_is_no_request(app: App, threads: int) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(app, WebOptions("tests:app", threads=threads)) as worker:
        client = worker.connect()
        framed = POST.format("/").encode() + b"Transfer-Encoding: chunked\r\n\r\n"
        client.send(post(smuggled) + framed + chunked(smuggled, 10) + post(b""))
        expected = [b"deaf"] * 3 if app is deaf else [smuggled, smuggled, b""]
        assert [client.answer().body for _ in range(3)] == expected


def test_a_large_body_that_nobody_reads_ends_the_connection_after_the_answer() -> None:
    with serving(deaf) as worker:
        client = worker.connect()
        answer = client.ask(post(b"x" * 2_000_000))
        assert (answer.body, answer.fields["connection"]) == (b"deaf", "close")
        assert client.rest() == b""


def test_a_client_that_vanishes_in_its_body_costs_nobody_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failures: list[BaseException] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        try:
            return echo(environ, start_response)
        except OSError as error:
            failures.append(error)
            raise

    with serving(app) as worker:
        for sent in (10, 100_000):
            client = worker.connect()
            client.send(post(b"x" * 200_000)[: 100 + sent])
            client.socket.close()
        assert worker.connect().ask(post(b"abc")).body == b"abc"
    assert [str(failure) for failure in failures] == ["the client closed before the body's end"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_body_that_becomes_nonsense_is_refused_while_the_application_reads() -> None:
    head = POST.format("/").encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    with serving(echo) as worker:
        client = worker.connect()
        answer = client.ask(head + b"20000\r\n" + b"x" * 0x20000 + b"nonsense\r\n")
        assert (answer.status, answer.fields["connection"]) == (400, "close")
        assert client.rest() == b""


def test_a_chunked_body_that_becomes_too_long_is_refused_while_the_application_reads() -> None:
    head = POST.format("/").encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    options = WebOptions("tests:app", limits=Limits(body_bytes=100_000))
    with serving(echo, options) as worker:
        client = worker.connect()
        assert client.ask(head + chunked(b"x" * 100_000, 10_000)).status == 200
        assert client.ask(head + chunked(b"x" * 110_000, 10_000)).status == 413


@pytest.mark.parametrize("sent", [10, 100_000])
def test_a_body_that_does_not_come_is_a_408(sent: int) -> None:
    options = WebOptions("tests:app", timeouts=Timeouts(body_seconds=0.2))
    with serving(echo, options) as worker:
        client = worker.connect()
        answer = client.ask(post(b"x" * 200_000)[: 100 + sent])
        assert (answer.status, answer.fields["connection"]) == (408, "close")


def test_a_slow_body_holds_no_thread() -> None:
    with serving(echo) as worker:
        slow = [worker.connect() for _ in range(20)]
        for client in slow:
            client.send(post(b"x" * 60_000)[:30_000])
        assert worker.connect().ask(post(b"abc")).body == b"abc"
        for client in slow:
            client.send(post(b"x" * 60_000)[30_000:])
            assert client.answer().body == b"x" * 60_000


def test_a_body_of_which_the_answer_has_begun_already_can_still_be_read() -> None:
    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [TEXT])
        yield b"begun:"
        yield environ["wsgi.input"].read()

    with serving(app) as worker:
        client = worker.connect()
        assert client.ask(post(b"x" * 300_000)).body == b"begun:" + b"x" * 300_000
