"""Lifespan: what an application may do before the first request and after the last."""

import asyncio

import msgspec
import pytest

from sengu.http.asgi.types import App, Message, Receive, Scope, Send
from tests.kernel.asgi_worker import APPLICATION, MakeApp, receive_all, respond, serving, started
from tests.kernel.children import Child


def _with_lifespan(child: Child, failing: str = "") -> App:
    """Tells what it is given. `failing` is a message that it says it failed at."""

    async def live(receive: Receive, send: Send) -> None:
        for step in ("startup", "shutdown"):
            message = await receive()
            assert message["type"] == f"lifespan.{step}"
            child.tell(step)
            if step == failing:
                await send({"type": f"lifespan.{step}.failed", "message": f"no {step}"})
                return
            await send({"type": f"lifespan.{step}.complete"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = "the pool"
            await live(receive, send)
        else:
            child.tell("request")
            await respond(send, scope["state"]["pool"].encode())

    return app


def test_startup_is_before_readiness_and_shutdown_after_the_last_request() -> None:
    with serving(_with_lifespan) as worker:
        with worker.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert receive_all(client).endswith(b"the pool")
        worker.retire()
        worker.wait()
        assert worker.child.heard() == [
            "startup",
            "ready",
            "roused",
            "request",
            "told RETIRE",
            "shutdown",
            "drained",
        ]


def test_a_startup_that_says_it_failed_is_an_error_with_its_words() -> None:
    with started(lambda child: _with_lifespan(child, "startup")) as worker:
        error = worker.child.wait_to_hear("load error ")
        assert error == "the application's lifespan startup failed: no startup"
        assert "ready" not in worker.child.heard()


def test_a_shutdown_that_says_it_failed_is_told_and_changes_nothing() -> None:
    with serving(lambda child: _with_lifespan(child, "shutdown")) as worker:
        worker.retire()
        worker.wait()
        assert "stderr no shutdown" in worker.child.heard()


def test_an_exception_in_startup_is_an_error_with_its_traceback() -> None:
    def make(_child: Child) -> App:
        async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
            await receive()
            raise RuntimeError("no database")

        return app

    with started(make) as worker:
        assert "RuntimeError: no database" in worker.child.wait_to_hear("load error ")
        assert "ready" not in worker.child.heard()


def test_an_exception_after_startup_ends_no_request_and_is_told_at_once() -> None:
    def make(_child: Child) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                raise RuntimeError("the pool broke")
            await respond(send)

        return app

    with serving(make) as worker:
        worker.child.wait_to_hear("stderr RuntimeError: the pool broke")
        with worker.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert receive_all(client).endswith(b"hello")


def _refusing(_child: Child) -> App:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send)

    return app


def _careless(_child: Child) -> App:
    """Answers whatever it is asked as if it were HTTP."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await respond(send)

    return app


def _returning(_child: Child) -> App:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)

    return app


@pytest.mark.parametrize("make", [_refusing, _careless, _returning])
def test_an_application_without_a_lifespan_is_served(make: MakeApp) -> None:
    with serving(make) as worker:
        with worker.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert receive_all(client).endswith(b"hello")
        worker.retire()
        worker.wait()
        assert worker.child.heard() == ["ready", "roused", "told RETIRE", "drained"]


def test_a_shutdown_that_never_ends_is_bounded() -> None:
    def make(child: Child) -> App:
        async def app(_scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            child.tell("shutdown")
            await asyncio.Event().wait()

        return app

    application = msgspec.structs.replace(APPLICATION, grace_seconds=1.0)
    with serving(make, application=application) as worker:
        worker.retire()
        worker.child.wait_to_hear("shutdown")
        worker.wait()
        assert worker.child.heard()[-2].endswith("lifespan shutdown did not end in time")


def test_a_worker_that_is_stopped_while_it_starts_ends_at_once() -> None:
    def make(child: Child) -> App:
        async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
            message: Message = await receive()
            child.tell(message["type"])
            await asyncio.Event().wait()

        return app

    with started(make) as worker:
        worker.child.wait_to_hear("lifespan.startup")
        worker.retire()
        worker.wait()
        assert "ready" not in worker.child.heard()
