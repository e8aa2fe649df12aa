"""PEP 3333 as applications see it, with `wsgiref.validate` between the worker and each of them."""

import gzip
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from sengu.model.web import WebOptions
from tests.kernel.http_worker import App, Client, Environ, Worker, serving

TEXT = ("Content-Type", "text/plain")
StartResponse = Callable[..., Callable[[bytes], object]]


def ask(app: App, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", **options: Any) -> Any:
    with serving(app, WebOptions("tests:app", **options)) as worker:
        return worker.connect().ask(request, is_head=request.startswith(b"HEAD"))


def validated(app: Any) -> App:
    checked: App = validator(app)
    return checked


class Body:
    """An iterable that says that it was closed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self.closed += 1


def seen_by(request: bytes, **options: Any) -> Environ:
    """The environ of a request, and what its body was."""
    seen: Environ = {}

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.update(environ, body=environ["wsgi.input"].read(1 << 20))
        start_response("200 OK", [TEXT])
        return [b""]

    answer = ask(validated(app), request, **options)
    assert answer.status == 200
    return seen


def test_the_environ_is_complete() -> None:
    seen = seen_by(
        b"POST /a%20b/%C3%A4?q=%20&r HTTP/1.1\r\nHost: x:81\r\nContent-Type: a/b\r\n"
        b"Content-Length: 3\r\nCookie: a=1\r\nCookie: b=2\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc"
    )
    wanted = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa4",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/a%20b/%C3%A4?q=%20&r",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "sengu",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "x:81",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_A": "1, 2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "body": b"abc",
    }
    assert {name: seen[name] for name in wanted} == wanted
    assert seen["SERVER_PORT"].isdigit()
    assert seen["REMOTE_PORT"].isdigit()
    assert "HTTP_CONTENT_LENGTH" not in seen


def test_fields_that_could_be_taken_for_others_are_dropped() -> None:
    seen = seen_by(
        b"GET / HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: y\r\nProxy: z\r\nX-A_B: c\r\n\r\n"
    )
    assert not {"HTTP_X_FORWARDED_FOR", "HTTP_PROXY", "HTTP_X_A_B"} & set(seen)


@pytest.mark.parametrize(
    ("path", "script", "info"),
    [
        (b"/root/a", "/root", "/a"),
        (b"/root", "/root", ""),
        (b"/a", "/root", "/a"),
        (b"/rooted", "/root", "/rooted"),
    ],
)
def test_the_root_path_is_cut_off_unless_a_proxy_has(path: bytes, script: str, info: str) -> None:
    seen = seen_by(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n", root_path="/root")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (script, info)


def test_with_threads_the_application_is_told() -> None:
    assert seen_by(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", threads=2)["wsgi.multithread"] is True


def test_a_unix_socket_has_clients_without_addresses(free_path: Path) -> None:
    seen: Environ = {}

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [TEXT])
        return [b"x"]

    with serving(validated(app), path=free_path / "web.sock") as worker:
        assert worker.connect().get().body == b"x"
    assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"], seen["SERVER_PORT"]) == (
        "",
        "localhost",
        "80",
    )


def test_a_client_that_repeats_itself_gets_an_environ_of_its_own_each_time() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        assert "mine" not in environ
        environ["mine"] = 1
        environ["HTTP_HOST"] = "changed"
        seen.append(environ)
        start_response("200 OK", [TEXT])
        return [b"x"]

    with serving(app) as worker:
        for client in (worker.connect(), worker.connect()):
            for _ in range(4):
                assert client.get("/same").body == b"x"
    assert len({id(environ) for environ in seen}) == 8
    assert {environ["PATH_INFO"] for environ in seen} == {"/same"}
    assert len({environ["REMOTE_PORT"] for environ in seen}) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: [b"hello"],
        lambda: (b"hello",),
        lambda: [b"he", b"", b"llo"],
        lambda: Body([b"he", b"", b"llo"]),
        lambda: iter([b"hello"]),
    ],
    ids=["a list", "a tuple", "a list of several", "an object", "an iterator"],
)
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_a_body_may_be_any_iterable(make: Any, declared: bool, protocol: str) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Any:
        fields = [TEXT, ("Content-Length", "5")] if declared else [TEXT]
        start_response("200 OK", fields)
        return make()

    answer = ask(validated(app), "GET / HTTP/1.1\r\nHost: x\r\n\r\n".replace(
        "HTTP/1.1", protocol).encode())  # fmt: skip
    assert answer.body == b"hello"
    assert "date" in answer.fields
    assert answer.fields["server"] == "sengu"


@pytest.mark.parametrize("size", [1, 1 << 16, (1 << 16) + 1, 5_000_000])
def test_a_body_may_be_large(size: int) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [TEXT])
        return [b"x" * size]

    answer = ask(app)
    assert answer.fields["content-length"] == str(size)
    assert answer.body == b"x" * size


def test_iterables_are_closed_always() -> None:
    bodies: list[Body] = []

    def chunks(path: str) -> Iterator[bytes]:
        yield b"a"
        if path == "/raises":
            raise ValueError(path)

    def app(environ: Environ, start_response: StartResponse) -> Body:
        start_response("200 OK", [TEXT, ("Content-Length", "1")])
        bodies.append(Body(chunks(environ["PATH_INFO"])))
        return bodies[-1]

    with serving(app) as worker:
        worker.connect().get("/fine")
        worker.connect().ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", is_head=True)
        client = worker.connect()
        client.send(b"GET /raises HTTP/1.1\r\nHost: x\r\n\r\n")
        worker.connect().get("/fine")
    assert [body.closed for body in bodies] == [1, 1, 1, 1]


def test_write_sends_at_once() -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"he")
        write(b"")
        write(b"l")
        return [b"lo"]

    answer = ask(validated(app))
    assert answer.fields["transfer-encoding"] == "chunked"
    assert answer.body == b"hello"


def test_what_is_written_after_the_end_does_not_get_into_the_next_answer() -> None:
    writers: list[Callable[[bytes], object]] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        writers.append(start_response("200 OK", [TEXT]))
        if len(writers) == 2:
            with pytest.raises(RuntimeError, match="after the answer's end"):
                writers[0](b"late")
        yield b"hello"

    with serving(app) as worker:
        client = worker.connect()
        assert [client.get().body for _ in range(2)] == [b"hello"] * 2


def test_a_chunk_is_sent_before_the_next_is_asked_for() -> None:
    with socket.socket() as gate, socket.socket() as key:
        gate.bind(("127.0.0.1", 0))
        gate.listen()

        def chunks() -> Iterator[bytes]:
            yield b"first"
            gate.accept()[0].close()
            yield b"second"

        def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", [TEXT])
            return chunks()

        with serving(app) as worker:
            client = worker.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b""
            while b"first" not in data:
                data += client.socket.recv(1000)
            key.connect(gate.getsockname())
            while not data.endswith(b"0\r\n\r\n"):
                data += client.socket.recv(1000)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_where_no_body_may_be_there_is_none(method: str, status: str) -> None:
    if (method, status) == ("GET", "200 OK"):
        return

    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(status, [("ETag", "x")])
        return [b"unwanted"]

    with serving(app) as worker:
        client = worker.connect()
        request = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        for _ in range(2):
            answer = client.ask(request, is_head=True)
            assert f"{answer.status}" == status[:3]
            assert "transfer-encoding" not in answer.fields


def test_a_head_may_say_how_long_the_body_would_be() -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "1234")])
        return []

    answer = ask(validated(app), b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.fields["content-length"] == "1234"


def test_an_answer_may_be_replaced_while_nothing_was_sent() -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "100")])
        try:
            raise ValueError("late")
        except ValueError:
            start_response("503 Service Unavailable", [TEXT], sys.exc_info())
        return [b"sorry"]

    answer = ask(validated(app))
    assert (answer.status, answer.body) == (503, b"sorry")


def test_afterwards_the_error_is_raised_again_and_the_connection_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "100")])
        yield b"some"
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Oh", [TEXT], sys.exc_info())

    with serving(app) as worker, pytest.raises((EOFError, ConnectionResetError)):
        worker.connect().get()
    assert "too late" in capsys.readouterr().err


BAD_STARTS: list[tuple[str, Callable[[StartResponse], object]]] = [
    ("called twice", lambda start: (start("200 OK", [TEXT]), start("200 OK", [TEXT]))),
    ("not called", lambda start: None),
    ("a number for a status", lambda start: start(200, [TEXT])),
    ("a status without a reason", lambda start: start("200", [TEXT])),
    ("an informational status", lambda start: start("100 Continue", [])),
    ("a status with a line end", lambda start: start("200 OK\r\nX: y", [TEXT])),
    ("a value with a line end", lambda start: start("200 OK", [("X", "a\r\nSet-Cookie: b")])),
    ("a value with a bare CR", lambda start: start("200 OK", [("X", "a\rb")])),
    ("a value with a bare LF", lambda start: start("200 OK", [("X", "a\nb")])),
    ("a value with NUL", lambda start: start("200 OK", [("X", "a\0b")])),
    ("a name with a line end", lambda start: start("200 OK", [("X\r\nY", "a")])),
    ("a name with a colon", lambda start: start("200 OK", [("X:", "a")])),
    ("an empty name", lambda start: start("200 OK", [("", "a")])),
    ("a name of bytes", lambda start: start("200 OK", [(b"X", "a")])),
    ("a value of bytes", lambda start: start("200 OK", [("X", b"a")])),
    ("a number for a value", lambda start: start("200 OK", [("Content-Length", 5)])),
    ("a value that is not Latin-1", lambda start: start("200 OK", [("X", "\u20ac")])),
    ("two lengths", lambda start: start("200 OK", [("Content-Length", "1")] * 2)),
    ("a signed length", lambda start: start("200 OK", [("Content-Length", "+5")])),
    ("a connection field", lambda start: start("200 OK", [("Connection", "close")])),
    ("a transfer coding", lambda start: start("200 OK", [("Transfer-Encoding", "chunked")])),
    ("an upgrade", lambda start: start("200 OK", [("upgrade", "h2c")])),
]


@pytest.mark.parametrize("bad", [pytest.param(call, id=name) for name, call in BAD_STARTS])
def test_what_must_not_be_said_is_a_500_and_the_worker_goes_on(
    bad: Callable[[StartResponse], object], capsys: pytest.CaptureFixture[str]
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/bad":
            bad(start_response)
        else:
            start_response("200 OK", [TEXT])
        return [b"hello"]

    with serving(app) as worker:
        client = worker.connect()
        answer = client.get("/bad")
        assert answer.status == 500
        assert answer.body == b"Internal Server Error"
        assert b"hello" not in answer.raw_head
        assert client.get().body == b"hello"
    assert "GET /bad: exception in the application" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("debug", [False, True])
def test_an_application_that_raises_is_a_500(
    error: type[BaseException], debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(_environ: Environ, _start_response: StartResponse) -> list[bytes]:
        raise error("<reason>")

    with serving(app, WebOptions("tests:app", debug=debug)) as worker:
        for _ in range(2):
            client = worker.connect()
            answer = client.get("/that?x=1")
            assert answer.status == 500
            assert (b"&lt;reason&gt;" in answer.body) is debug
            assert b"<reason>" not in answer.body
    said = capsys.readouterr().err
    assert "sengu: GET /that?x=1: exception in the application" in said
    assert "<reason>" in said
    assert "exchange.py" not in said


def test_the_body_is_as_long_as_declared_or_the_connection_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Body:
        start_response("200 OK", [TEXT, ("Content-Length", "5")])
        return Body({"/more": [b"hell", b"o and more"], "/less": [b"hel"]}[environ["PATH_INFO"]])

    with serving(app) as worker:
        client = worker.connect()
        assert client.get("/more").body == b"hello"
        with pytest.raises((EOFError, ConnectionResetError)):
            client.get("/less")
    said = capsys.readouterr().err
    assert "GET /more: the body is not as long as its Content-Length says" in said
    assert "GET /less: the body is not as long as its Content-Length says" in said


@pytest.mark.parametrize("body", ["text", 5, None])
def test_a_body_that_is_not_bytes_is_a_500(body: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[Any]:
        start_response("200 OK", [TEXT])
        return [body]

    assert ask(app).status == 500
    assert "TypeError" in capsys.readouterr().err


def test_the_application_may_give_date_and_server() -> None:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("DATE", "then"), ("server", "mine")])
        return [b"x"]

    head = ask(app).raw_head.lower()
    assert head.count(b"date:") == head.count(b"server:") == 1
    assert b"date: then" in head


def test_a_file_is_sent_by_the_kernel_from_where_it_was_read_to(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8000
    (tmp_path / "file").write_bytes(content)
    files = []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        file = open(tmp_path / "file", "rb")  # noqa: SIM115 - the wrapper closes it
        file.read(int(environ["QUERY_STRING"] or 0))
        files.append(file)
        fields = [TEXT]
        if environ["PATH_INFO"] == "/part":
            fields.append(("Content-Length", "1000"))
        start_response("200 OK", fields)
        return environ["wsgi.file_wrapper"](file)

    with serving(app) as worker:
        client = worker.connect()
        assert client.get("/").body == content
        assert client.get("/?100").body == content[100:]
        assert client.get("/part?100").body == content[100:1100]
        assert client.get(f"/?{len(content)}").body == b""
        answer = client.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", is_head=True)
        assert answer.status == 200
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.answer().body == content
    assert all(file.closed for file in files)


def test_a_file_with_a_descriptor_of_other_bytes_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "packed", "wb") as packed:
        packed.write(b"content")

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [TEXT])
        if environ["PATH_INFO"] == "/packed":
            return environ["wsgi.file_wrapper"](gzip.open(tmp_path / "packed"))
        return environ["wsgi.file_wrapper"](open("/proc/self/status", "rb"))

    with serving(app) as worker:
        client = worker.connect()
        assert client.get("/packed").body == b"content"
        assert client.get("/status").body.startswith(b"Name:")


def test_what_is_no_file_can_be_wrapped_too() -> None:
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(b"spooled")
        spooled.seek(0)

        def app(environ: Environ, start_response: StartResponse) -> Any:
            start_response("200 OK", [TEXT])
            return environ["wsgi.file_wrapper"](spooled, 3)

        assert ask(validated(app)).body == b"spooled"


def test_early_hints_come_first_and_only_to_those_who_know_them() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        start_response("200 OK", [TEXT])
        return [b"x"]

    with serving(app) as worker:
        client = worker.connect()
        hints = client.get()
        assert (hints.status, hints.fields) == (103, {"link": "</a.css>; rel=preload"})
        assert client.answer().status == 200
        assert worker.connect().ask(b"GET / HTTP/1.0\r\n\r\n").status == 200


@pytest.fixture
def echo() -> Iterator[Worker]:
    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [TEXT])
        return [b"x"]

    with serving(app) as worker:
        yield worker


@pytest.mark.parametrize(
    ("protocol", "connection", "stays"),
    [
        ("HTTP/1.1", "", True),
        ("HTTP/1.1", "keep-alive", True),
        ("HTTP/1.1", "close", False),
        ("HTTP/1.1", "Keep-Alive, CLOSE", False),
        ("HTTP/1.1", "closer", True),
        ("HTTP/1.0", "", False),
        ("HTTP/1.0", "Keep-Alive", True),
        ("HTTP/1.0", "close", False),
    ],
)
def test_the_connection_stays_when_the_client_wants_it(
    echo: Worker, protocol: str, connection: str, stays: bool
) -> None:
    client = echo.connect()
    field = f"Connection: {connection}\r\n" if connection else ""
    request = f"GET / {protocol}\r\nHost: x\r\n{field}\r\n".encode()
    for _ in range(2 if stays else 1):
        answer = client.ask(request)
        assert answer.body == b"x"
        assert answer.fields.get("connection") == (
            "close" if not stays else "keep-alive" if protocol == "HTTP/1.0" else None
        )
    if not stays:
        assert client.rest() == b""


def test_pipelined_requests_are_answered_in_order(echo: Worker) -> None:
    client = echo.connect()
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(request * 500 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answers = [client.answer() for _ in range(501)]
    assert {answer.body for answer in answers} == {b"x"}
    assert client.rest() == b""


def test_the_scoreboard_tells_of_the_request_in_hand() -> None:
    told: list[Any] = []

    def app(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        told.append(workers[0].runtime.board.lanes[0].read())
        start_response("200 OK", [TEXT])
        return [b"x"]

    workers: list[Worker] = []
    with serving(app) as worker:
        workers.append(worker)
        client: Client = worker.connect()
        client.get("/secret?password=1")
        client.get("/second")
    assert [line.request for line in told] == ["GET /secret", "GET /second"]
    assert [line.requests for line in told] == [1, 2]
    assert all(line.is_busy for line in told)
    assert not workers[0].runtime.board.lanes[0].read().is_busy
