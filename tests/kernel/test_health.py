"""The path at which a worker tells whether the service takes requests, of either engine."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.model.application import Application
from sengu.model.web import AccessLog, WebOptions
from sengu.worker.runtime import Stopping
from tests.kernel import asgi_worker, http_worker
from tests.kernel.children import Child
from tests.kernel.http_worker import Client
from tests.system.puppets import Gate

OPTIONS = WebOptions("tests:app", health_path="/healthz")
_POST = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
_HEAD = b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Served(NamedTuple):
    """A worker of some engine. `requests` are those that it has counted; `stop` does not wait."""

    connect: Callable[[], Client]
    show_ending: Callable[[], None]
    retire: Callable[[], None]
    stop: Callable[[], None]
    requests: Callable[[], int]


Serve = Callable[[WebOptions], contextlib.AbstractContextManager[Served]]


def _wait(path: str, gate: str) -> None:
    """Answer requests for `/wait` when the gate is open, and nobody else meanwhile."""
    if path == "/wait":
        Path(gate).read_bytes()


def _wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    _wait(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application"]


async def _asgi_app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError  # as those do that have none
    _wait(scope["path"], scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the application"})


@contextlib.contextmanager
def _serve_wsgi(options: WebOptions) -> Iterator[Served]:
    with http_worker.serving(_wsgi_app, options) as worker:
        yield Served(
            worker.connect,
            worker.show_ending,
            lambda: worker.runtime.stop(Stopping.RETIRE),
            lambda: worker.runtime.stop(Stopping.STOP),
            lambda: worker.runtime.board.lanes[0].requests,
        )


@contextlib.contextmanager
def _serve_asgi(options: WebOptions) -> Iterator[Served]:
    application = Application("sengu.http.engine", "tests:app", grace_seconds=10.0)

    def make(_child: Child) -> App:
        return _asgi_app

    with asgi_worker.serving(make, options, application) as worker, contextlib.ExitStack() as end:

        def connect() -> Client:
            return Client(end.enter_context(worker.connect()))

        yield Served(
            connect,
            worker.show_ending,
            worker.retire,
            lambda: worker.signal(signal.SIGQUIT),
            lambda: worker.line().requests,
        )
        worker.signal(signal.SIGQUIT)
        worker.wait()


@pytest.fixture(params=[_serve_wsgi, _serve_asgi], ids=["wsgi", "asgi"])
def serve(request: pytest.FixtureRequest) -> Serve:
    found: Serve = request.param
    return found


def test_the_path_is_answered_without_the_application(serve: Serve) -> None:
    with serve(OPTIONS) as worker:
        client = worker.connect()
        answer = client.get("/healthz?from=here")
        assert (answer.status, answer.body) == (200, b"ok\n")
        assert answer.fields["cache-control"] == "no-store"
        assert "connection" not in answer.fields
        for other in ("/", "/healthz/", "/healthzz", "/HEALTHZ"):
            assert worker.connect().get(other).body == b"the application"


def test_without_such_a_path_the_application_is_asked(serve: Serve) -> None:
    with serve(WebOptions("tests:app")) as worker:
        assert worker.connect().get("/healthz").body == b"the application"


def test_it_is_answered_where_the_application_is_mounted_too(serve: Serve) -> None:
    with serve(msgspec.structs.replace(OPTIONS, root_path="/app")) as worker:
        client = worker.connect()
        assert client.get("/app/healthz").body == b"ok\n"
        assert client.get("/healthz").body == b"ok\n"
        assert client.get("/app/").body == b"the application"


def test_head_and_requests_with_a_body_are_answered_on_a_connection_that_stays(
    serve: Serve,
) -> None:
    with serve(OPTIONS) as worker:
        client = worker.connect()
        assert client.ask(_HEAD, is_head=True).fields["content-length"] == "3"
        assert client.ask(_POST).body == b"ok\n"
        assert client.get("/").body == b"the application"


def test_it_says_no_as_soon_as_the_service_is_to_end_while_all_else_is_served(
    serve: Serve,
) -> None:
    with serve(OPTIONS) as worker:
        old = worker.connect()
        assert old.get("/healthz").status == 200
        worker.show_ending()
        for client in (old, worker.connect()):
            answer = client.get("/healthz")
            assert (answer.status, answer.body) == (503, b"stopping\n")
            assert client.ask(_HEAD, is_head=True).status == 503
            assert client.get("/").body == b"the application"


def test_it_says_no_when_the_worker_stops_for_good(serve: Serve, tmp_path: Path) -> None:
    """To who has asked when the worker hears of it: who is silent then has half a second."""
    gate = Gate(tmp_path)
    with serve(OPTIONS) as worker:
        client, other = worker.connect(), worker.connect()
        client.get("/")
        other.send(f"GET /wait?{gate.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        gate.wait_for_somebody()
        worker.stop()
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.open()
        assert client.answer().status == 503


def test_it_says_yes_when_another_generation_serves_instead(serve: Serve) -> None:
    with serve(OPTIONS) as worker:
        client = worker.connect()
        client.get("/")
        worker.retire()
        answer = client.get("/healthz")
        assert answer.status == 200
        assert answer.fields["connection"] == "close"


def test_such_requests_are_neither_counted_nor_logged(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    options = msgspec.structs.replace(OPTIONS, access_log=AccessLog(str(log)))
    with serve(options) as worker:
        client = worker.connect()
        for _ in range(5):
            client.get("/healthz")
        client.get("/")
        assert worker.requests() == 1
    assert [line.split('"')[1] for line in log.read_text().splitlines()] == ["GET / HTTP/1.1"]
