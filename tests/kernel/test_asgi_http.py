"""HTTP over a real socket to an ASGI worker: what applications and clients rely on."""

import http.client
import json
import re
import socket
from typing import Any

import httpx
import msgspec
import pytest

from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.model.application import Wear
from sengu.model.web import AccessLog, Limits
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


def hello(_child: Child) -> App:
    async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send)

    return app(handle)


def echo(_child: Child) -> App:
    async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, await read_body(receive))

    return app(handle)


def show_scope(_child: Child) -> App:
    """Answers with its scope, as JSON."""

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        scope = {name: value for name, value in scope.items() if name not in ("state", "asgi")}
        await respond(send, json.dumps(scope, default=lambda value: value.decode()).encode())

    return app(handle)


def get(connection: http.client.HTTPConnection, path: str = "/", **headers: str) -> Any:
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    with connection.getresponse() as response:
        return response, response.read()


def test_a_connection_is_kept_for_many_requests() -> None:
    with serving(hello) as worker:
        connection = worker.http()
        for _ in range(3):
            response, body = get(connection)
            assert (response.status, body) == (200, b"hello")
            link = connection.sock
            assert link is not None
        assert worker.line().requests == 3
        assert worker.line().connections == 1


def test_answers_say_sengu_and_the_date() -> None:
    with serving(hello) as worker:
        response, _ = get(worker.http())
        assert response.getheader("server") == "sengu"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", response.getheader("date"))


def test_a_body_of_many_megabytes_comes_and_goes() -> None:
    data = bytes(range(256)) * 20_000
    with serving(echo) as worker, httpx.Client() as client:
        for content in (data, iter([data[:1000], data[1000:]])):
            answer = client.post(f"http://127.0.0.1:{worker.port}/", content=content, timeout=20)
            assert answer.content == data


def test_a_response_is_streamed_piece_by_piece() -> None:
    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, b"first")
            message = await receive()
            assert message["body"] == b"x"
            await send({"type": "http.response.body", "body": b"last"})

        return app(handle)

    with serving(make) as worker, worker.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        receive_until(client, b"5\r\nfirst\r\n")
        client.sendall(b"x")
        receive_until(client, b"4\r\nlast\r\n0\r\n\r\n")


def test_the_client_is_asked_for_its_body_when_the_application_wants_it() -> None:
    with serving(echo) as worker, worker.connect() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        receive_until(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(b"ok")
        receive_until(client, b"\r\n\r\nok")


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("field", [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")])
def test_where_no_body_may_be_there_is_none(status: int, field: tuple[bytes, bytes]) -> None:
    def make(_child: Child) -> App:
        async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": status, "headers": [field]})
            await send({"type": "http.response.body", "body": b"hello"})

        return app(handle)

    with serving(make) as worker, worker.connect() as client:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n"
        client.sendall(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        heads = receive_all(client).split(b"\r\n\r\n")
        assert [head[:12] for head in heads] == [b"HTTP/1.1 %d" % status] * 2 + [b""]
        assert b"content-length" not in heads[0].lower()


def test_pipelined_requests_are_answered_in_their_order() -> None:
    def make(_child: Child) -> App:
        async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
            await respond(send, scope["path"].encode())

        return app(handle)

    with serving(make) as worker, worker.connect() as client:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % one for one in range(5)))
        data = receive_until(client, b"/4")
        assert re.findall(rb"\r\n\r\n(/\d)", data) == [b"/0", b"/1", b"/2", b"/3", b"/4"]


def test_an_exception_is_a_500_and_a_traceback_on_stderr() -> None:
    def make(_child: Child) -> App:
        async def handle(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise RuntimeError("the cause")

        return app(handle)

    with serving(make) as worker:
        response, body = get(worker.http())
        assert (response.status, b"the cause" in body) == (500, False)
        worker.child.wait_to_hear("stderr RuntimeError: the cause")
        worker.child.wait_to_hear("stderr in answer to GET /")


def test_with_debug_the_traceback_is_on_the_page_too() -> None:
    def make(_child: Child) -> App:
        async def handle(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise RuntimeError("the cause")

        return app(handle)

    with serving(make, msgspec.structs.replace(OPTIONS, debug=True)) as worker:
        response, body = get(worker.http())
        assert response.status == 500
        assert b"RuntimeError: the cause" in body
        worker.child.wait_to_hear("stderr RuntimeError: the cause")


def test_a_client_that_leaves_is_told_to_the_application() -> None:
    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, b"first")
            await receive()
            child.tell((await receive())["type"])

        return app(handle)

    with serving(make) as worker:
        with worker.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(client, b"first\r\n")
        worker.child.wait_to_hear("http.disconnect")


def test_trailers_are_not_taken_for_header_fields() -> None:
    def make(_child: Child) -> App:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)
            await respond(send, repr(scope["headers"]).encode())

        return app(handle)

    with serving(make) as worker, worker.connect() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.sendall(b"1\r\nx\r\n0\r\nX-User: admin\r\n\r\n")
        assert b"admin" not in receive_all(client)


@pytest.mark.parametrize("path", ["/a%20b", "/below/a%20b"])
def test_the_root_path_is_part_of_the_path_whoever_puts_it_there(path: str) -> None:
    with serving(show_scope, msgspec.structs.replace(OPTIONS, root_path="/below/")) as worker:
        _, body = get(worker.http(), path)
        scope = json.loads(body)
        assert scope["root_path"] == "/below"
        assert scope["path"] == "/below/a b"
        assert scope["raw_path"] == "/below/a%20b"


def test_a_trusted_proxy_says_who_the_client_is() -> None:
    options = msgspec.structs.replace(OPTIONS, trusted_proxies=("127.0.0.0/8",))
    with serving(show_scope, options) as worker:
        _, body = get(
            worker.http(),
            X_Forwarded_For="192.0.2.7:99, 127.0.0.1",
            X_Forwarded_Proto="https",
            X_Forwarded_Host="example.org",
        )
        scope = json.loads(body)
        assert scope["client"] == ["192.0.2.7", 99]
        assert scope["scheme"] == "https"
        assert [value for name, value in scope["headers"] if name == "host"] == ["example.org"]


def test_others_are_not_believed_what_proxies_would_say() -> None:
    options = msgspec.structs.replace(OPTIONS, trusted_proxies=("192.0.2.0/24",))
    with serving(show_scope, options) as worker:
        _, body = get(worker.http(), X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https")
        scope = json.loads(body)
        assert scope["client"][0] == "127.0.0.1"
        assert scope["scheme"] == "http"


def test_requests_are_in_the_access_log(tmp_path: Any) -> None:
    log = tmp_path / "access.log"
    options = msgspec.structs.replace(OPTIONS, access_log=AccessLog(str(log), "common"))
    with serving(hello, options) as worker:
        get(client := worker.http(), "/path?query=1")
        client.close()
        worker.retire()
        worker.wait()
    line = log.read_text()
    assert line.startswith("127.0.0.1 - - [")
    assert line.endswith('"GET /path?query=1 HTTP/1.1" 200 5\n')


def test_after_its_last_request_a_worker_says_once_that_it_is_worn_and_serves_on() -> None:
    application = msgspec.structs.replace(APPLICATION, wear=Wear(max_requests=3, jitter=0.0))
    with serving(hello, application=application) as worker:
        connection = worker.http()
        for _ in range(4):
            get(connection)
        assert worker.child.wait_to_hear("worn ") == "max-requests 3"
        assert get(connection)[0].status == 200


def test_no_more_connections_are_taken_than_the_limit_until_one_leaves() -> None:
    limits = Limits(connections=1)
    with serving(hello, msgspec.structs.replace(OPTIONS, limits=limits)) as worker:
        first = worker.http()
        get(first)
        with worker.connect() as second:
            second.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            get(first)
            assert is_silent(second)
            first.close()
            receive_until(second, b"hello")


def test_a_unix_socket_is_served(tmp_path: Any) -> None:
    with serving(show_scope, path=tmp_path / "socket") as worker:
        response, body = get(worker.http())
        assert response.status == 200
        assert json.loads(body)["client"] is None


def test_the_listener_outlives_its_worker() -> None:
    with serving(hello) as worker:
        worker.retire()
        worker.wait()
        with worker.connect(), worker.accept():
            assert worker.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_request_that_asks_for_it_ends_the_connection() -> None:
    with serving(hello) as worker, worker.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"connection: close" in receive_until(client, b"hello")
        assert ends(client)


def test_an_upgrade_that_is_not_known_here_is_answered_and_the_last() -> None:
    with serving(hello) as worker, worker.connect() as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nrest"
        )
        assert b"connection: close" in receive_all(client)
