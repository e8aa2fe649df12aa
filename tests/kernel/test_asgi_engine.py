"""What is done in the fork server, what in the worker, and what the server is told of requests."""

import asyncio
import sys
import threading
from typing import Any

import msgspec
import pytest

from sengu.http.asgi.engine import AsgiApp
from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.model.web import AccessLog
from sengu.worker.engine import LoadError
from tests.kernel.asgi_worker import APPLICATION, OPTIONS, app, respond, serving, started
from tests.kernel.children import Child, in_child, open_descriptors
from tests.system.puppets import wait_until

GET = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application."""


def test_loading_starts_no_thread_and_opens_nothing() -> None:
    def body() -> None:
        import sengu.http.asgi.lifecycle  # noqa: F401, what is imported may open files on the way

        before = open_descriptors()
        AsgiApp(_nothing, None, OPTIONS, None)
        assert open_descriptors() == before
        assert threading.active_count() == 1

    in_child(body)


def test_what_is_heavy_is_imported_before_the_fork() -> None:
    def make(child: Child) -> App:
        before: set[str] = set()

        async def application(scope: Scope, _receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                before.update(sys.modules)
                raise NotImplementedError
            late = {name.partition(".")[0] for name in set(sys.modules) - before}
            child.tell(f"late {sorted(late & {'uvicorn', 'uvloop', 'httptools', 'websockets'})}")
            await respond(send)

        return application

    with serving(make) as worker, worker.connect() as client:
        client.sendall(GET)
        assert worker.child.wait_to_hear("late ") == "[]"


@pytest.mark.parametrize("missing", ["uvicorn", "httptools", "websockets"])
def test_without_the_extra_it_is_said_how_to_get_it(missing: str) -> None:
    def body() -> None:
        for name in tuple(sys.modules):
            if name.startswith(("sengu.http.asgi.", "uvicorn", "httptools", "websockets")):
                del sys.modules[name]
        sys.modules[missing] = None  # type: ignore[assignment]
        with pytest.raises(LoadError, match=r"pip install 'sengu\[asgi\]'"):
            AsgiApp(_nothing, None, OPTIONS, None)

    in_child(body)


def test_an_access_log_that_can_not_be_opened_is_an_error() -> None:
    log = AccessLog("/nowhere/access.log")
    with started(lambda _child: _nothing, msgspec.structs.replace(OPTIONS, access_log=log)) as one:
        error = one.child.wait_to_hear("load error ")
        assert error.startswith("cannot open the access log /nowhere/access.log: no such file")


def _holding(child: Child) -> App:
    async def handle(_scope: Scope, _receive: Receive, send: Send) -> None:
        child.tell("in hand")
        await asyncio.to_thread(child.wait_for_go)
        await respond(send)

    return app(handle)


def test_a_request_in_hand_is_on_the_scoreboard_and_wakes_the_ticker() -> None:
    with serving(_holding) as worker, worker.connect() as client:
        client.sendall(GET)
        worker.child.wait_to_hear("roused")
        worker.child.wait_to_hear("in hand")
        line = worker.line()
        assert (line.request, line.requests, line.is_busy) == ("GET /slow", 1, True)
        worker.child.go()
        client.recv(65536)
        with worker.connect() as other:  # after its answer the first is over
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            worker.child.go()
            other.recv(65536)
        while worker.line().is_busy:
            pass


def test_while_nothing_is_overdue_there_is_progress_and_then_no_more() -> None:
    application = msgspec.structs.replace(APPLICATION, request_timeout_seconds=5.0)
    with serving(_holding, application=application) as worker, worker.connect() as client:
        client.sendall(GET)
        worker.child.wait_to_hear("in hand")
        started_at = worker.line().started_at
        wait_until(lambda: worker.line().progress_at != started_at)
        wait_until(lambda: worker.line().progress_at == started_at)
        worker.child.go()


def test_a_loop_that_is_stuck_makes_no_progress() -> None:
    def stuck(child: Child) -> App:
        async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                child.tell("stuck")
                child.wait_for_go()
            await respond(send)

        return app(handle)

    with serving(stuck) as worker, worker.connect() as client:
        client.sendall(GET)
        worker.child.wait_to_hear("stuck")
        line: Any = worker.line()
        assert line.progress_at == line.started_at > 0
        worker.child.go()
