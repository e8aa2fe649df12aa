"""Requests that are malformed, ambiguous or too large: each gets its status, and the close.

The connection is closed so that the client gets the answer, however much it has sent.
"""

from collections.abc import Iterator

import pytest

from sengu.model.web import Limits, WebOptions
from tests.kernel.http_worker import Client, Environ, Worker, serving

LIMITS = Limits(request_line_bytes=200, header_fields=10, header_field_bytes=100, body_bytes=1000)


def app(environ: Environ, start_response: object) -> list[bytes]:
    environ["wsgi.input"].read()
    assert callable(start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode("latin-1")]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with serving(app, WebOptions("tests:app", limits=LIMITS)) as worker:
        yield worker


@pytest.fixture
def client(worker: Worker) -> Client:
    return worker.connect()


GET = b"GET / HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED: list[tuple[str, bytes, int]] = [
    # the request line
    ("no HTTP", b"hello\r\n\r\n", 400),
    ("binary", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ("no version", b"GET /\r\n\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("two spaces after the method", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("two spaces after the target", b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a space before the method", b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a tab for a space", b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a space after the version", b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    ("a method in lower case", b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a method with a bracket", b"G[T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("absolute form", b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("absolute form of another", b"GET https://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("authority form", b"GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("connect", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("connect to a path", b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("an asterisk to get", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a relative target", b"GET index.html HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("bare CR in the line", b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("bare LF after the line", b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    ("three empty lines before", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a bare LF before", b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a line that is too long", b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("a line without an end", b"GET /" + b"a" * 300, 414),
    # the version
    ("version 2.0", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("version 1.2", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    ("version 0.9", b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    ("version 1.10", b"GET / HTTP/1.10\r\nHost: x\r\n\r\n", 400),
    ("version 1", b"GET / HTTP/1\r\nHost: x\r\n\r\n", 400),
    ("another protocol", b"GET / FTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a version in lower case", b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    # fields
    ("no host", GET + b"\r\n", 400),
    ("two hosts", GET + HOST + b"Host: y\r\n\r\n", 400),
    ("two equal hosts", GET + HOST + HOST + b"\r\n", 400),
    ("a list of hosts", GET + b"Host: x, y\r\n\r\n", 400),
    ("a host with a path", GET + b"Host: x/y\r\n\r\n", 400),
    ("a host with a user", GET + b"Host: u@x\r\n\r\n", 400),
    ("a space before the colon", GET + b"Host : x\r\n\r\n", 400),
    ("a tab before the colon", GET + b"Host\t: x\r\n\r\n", 400),
    ("no colon", GET + HOST + b"Accept\r\n\r\n", 400),
    ("no name", GET + HOST + b": x\r\n\r\n", 400),
    ("a folded field", GET + HOST + b"X-A: b\r\n c\r\n\r\n", 400),
    ("a field folded by a tab", GET + HOST + b"X-A: b\r\n\tc\r\n\r\n", 400),
    ("a first field that is folded", GET + b" Host: x\r\n\r\n", 400),
    ("a name with a space", GET + HOST + b"X A: b\r\n\r\n", 400),
    ("a name with a bracket", GET + HOST + b"X(A): b\r\n\r\n", 400),
    ("a name that is not ASCII", GET + HOST + b"X\xe4: b\r\n\r\n", 400),
    ("NUL in a value", GET + HOST + b"X-A: b\0c\r\n\r\n", 400),
    ("a control character in a value", GET + HOST + b"X-A: b\x01c\r\n\r\n", 400),
    ("bare CR in a value", GET + HOST + b"X-A: b\rc\r\n\r\n", 400),
    ("bare LF after a field", GET + b"Host: x\nX-A: b\r\n\r\n", 400),
    ("bare LF at the end", GET + b"Host: x\r\n\n", 400),
    ("bare CR after a field", GET + b"Host: x\rX-A: b\r\n\r\n", 400),
    ("two types", POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400),
    ("too many fields", GET + HOST + b"X-A: b\r\n" * 10 + b"\r\n", 431),
    ("far too many fields", GET + HOST + b"X-A: b\r\n" * 300 + b"\r\n", 431),
    ("too many fields without an end", GET + HOST + b"X-A: b\r\n" * 11, 431),
    ("a field that is too long", GET + HOST + b"X-A: " + b"b" * 100 + b"\r\n\r\n", 431),
    ("a field without an end", GET + HOST + b"X-A: " + b"b" * 200, 431),
    # the framing of the body
    ("two lengths", POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    ("two equal lengths", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    ("a list of lengths", POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    ("a signed length", POST + b"Content-Length: +1\r\n\r\na", 400),
    ("a negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("a length in hex", POST + b"Content-Length: 0x1\r\n\r\na", 400),
    ("a length with an underscore", POST + b"Content-Length: 1_0\r\n\r\n", 400),
    ("an empty length", POST + b"Content-Length: \r\n\r\n", 400),
    ("an enormous length", POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    ("a length and chunks", POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("chunks and a length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
    ("a length and an unknown coding",
     POST + b"Content-Length: 1\r\nTransfer-Encoding: x\r\n\r\n", 400),
    ("chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("chunked in two fields", POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", 400),
    ("chunked, but not last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("an unknown coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    ("a quoted coding", POST + b'Transfer-Encoding: "chunked"\r\n\r\n', 501),
    ("gzip", POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    ("gzip, chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("identity", POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("a body that is too long", POST + b"Content-Length: 1001\r\n\r\n", 413),
    ("an unknown expectation", POST + b"Content-Length: 1\r\nExpect: magic\r\n\r\n", 417),
    # chunks
    ("no chunk size", CHUNKED + b"\r\n", 400),
    ("a chunk size that is no number", CHUNKED + b"x\r\n", 400),
    ("a chunk size with 0x", CHUNKED + b"0x1\r\na\r\n", 400),
    ("a negative chunk size", CHUNKED + b"-1\r\n", 400),
    ("a signed chunk size", CHUNKED + b"+1\r\na\r\n", 400),
    ("a chunk size with an underscore", CHUNKED + b"1_0\r\n", 400),
    ("an enormous chunk size", CHUNKED + b"f" * 17 + b"\r\n", 400),
    ("a space before the chunk size", CHUNKED + b" 1\r\na\r\n", 400),
    ("a space after the chunk size", CHUNKED + b"1 \r\na\r\n", 400),
    ("bare LF after the chunk size", CHUNKED + b"1\na\r\n0\r\n\r\n", 400),
    ("bare CR in an extension", CHUNKED + b"1;a\rb\r\na\r\n", 400),
    ("bare LF in an extension", CHUNKED + b"1;a\nb\r\na\r\n", 400),
    ("NUL in an extension", CHUNKED + b"1;a\0\r\na\r\n", 400),
    ("an extension without an end", CHUNKED + b"1;" + b"a" * 2000, 400),
    ("a chunk that is longer than its size", CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    ("a chunk that ends with a bare LF", CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    ("chunks that are too long", CHUNKED + b"3e9\r\n", 413),
    ("a trailer without a colon", CHUNKED + b"0\r\nabc\r\n\r\n", 400),
    ("a folded trailer", CHUNKED + b"0\r\na: b\r\n c\r\n\r\n", 400),
    ("trailers without an end", CHUNKED + b"0\r\n" + b"a: b\r\n" * 5000, 431),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "status"),
    [pytest.param(data, status, id=name) for name, data, status in REFUSED],
)
def test_it_is_refused_and_the_connection_closed(
    client: Client, request_: bytes, status: int
) -> None:
    answer = client.ask(request_)
    assert answer.status == status
    assert answer.fields["connection"] == "close"
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert answer.body
    assert client.rest() == b""


ACCEPTED: list[tuple[str, bytes, bytes]] = [
    ("the usual", GET + HOST + b"\r\n", b"/"),
    ("one empty line before", b"\r\n" + GET + HOST + b"\r\n", b"/"),
    ("an empty host", GET + b"Host:\r\n\r\n", b"/"),
    ("an IPv6 host", GET + b"Host: [::1]:80\r\n\r\n", b"/"),
    ("no host in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", b"/"),
    ("spaces around a value", GET + b"Host: \t x \t \r\n\r\n", b"/"),
    ("an empty value", GET + HOST + b"X-A:\r\n\r\n", b"/"),
    ("Latin-1 in a value", GET + HOST + b"X-A: \xe4\r\n\r\n", b"/"),
    ("escapes", b"GET /%e4%2F%zz?%20 HTTP/1.1\r\nHost: x\r\n\r\n", b"/\xe4/%zz"),
    ("a target that looks absolute", b"GET //y/z HTTP/1.1\r\nHost: x\r\n\r\n", b"//y/z"),
    (
        "the longest line",
        b"GET /" + b"a" * 186 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"/" + b"a" * 186,
    ),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    ("chunks", CHUNKED + b"1\r\na\r\n00A\r\n0123456789\r\n0\r\n\r\n", b"/"),
    ("extensions", CHUNKED + b'1;a=b;c="d"\r\na\r\n0;x\r\n\r\n', b"/"),
    ("trailers", CHUNKED + b"0\r\nA: b\r\n\r\n", b"/"),
    ("CHUNKED", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", b"/"),
    ("leading zeros", POST + b"Content-Length: 0001\r\n\r\na", b"/"),
]


@pytest.mark.parametrize(
    ("request_", "path"), [pytest.param(data, path, id=name) for name, data, path in ACCEPTED]
)
def test_what_is_unusual_but_right_is_served(client: Client, request_: bytes, path: bytes) -> None:
    answer = client.ask(request_)
    assert (answer.status, answer.body) == (200, path)


@pytest.mark.parametrize(
    ("request_", "path"),
    [pytest.param(data, path, id=name) for name, data, path in ACCEPTED if b"1.0" not in data],
)
def test_it_may_come_byte_by_byte_and_another_follow(
    client: Client, request_: bytes, path: bytes
) -> None:
    for at in range(len(request_)):
        client.send(request_[at : at + 1])
    answer = client.answer()
    assert (answer.status, answer.body) == (200, path)
    assert client.get("/next").body == b"/next"


@pytest.mark.parametrize("body_bytes", [10_000, 3_000_000])
def test_who_is_still_sending_gets_the_refusal_and_no_reset(
    client: Client, body_bytes: int
) -> None:
    request = POST + b"Content-Length: %d\r\n\r\n" % body_bytes
    assert client.ask(request + b"x" * body_bytes).status == 413
    assert client.rest() == b""


def test_a_second_request_after_a_refused_one_is_not_served(client: Client) -> None:
    client.send(GET + b"\r\n" + GET + HOST + b"\r\n")
    assert client.answer().status == 400
    assert client.rest() == b""
