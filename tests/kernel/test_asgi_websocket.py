"""Websockets on an ASGI worker, by a real client."""

import contextlib
from collections.abc import Iterator

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sengu.http.asgi.types import App, Receive, Scope, Send
from tests.kernel.asgi_worker import APPLICATION, OPTIONS, Worker, app, respond, serving
from tests.kernel.children import Child


@contextlib.contextmanager
def _connected(
    worker: Worker, path: str = "/", headers: dict[str, str] | None = None
) -> Iterator[ClientConnection]:
    # With a socket of ours it asks no proxy of the environment.
    link, url = worker.connect(), f"ws://localhost{path}"
    with link, connect(url, sock=link, additional_headers=headers, open_timeout=20) as client:
        yield client


def _echo(child: Child) -> App:
    """Tells why it was ended."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/closed":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "client":
                message["text"] = f"{scope['scheme']} {scope['client'][0]}"
            await send({**message, "type": "websocket.send"})
        child.tell(f"disconnected {message['code']}")

    return app(handle)


def test_messages_go_to_and_fro() -> None:
    with serving(_echo) as worker:
        with _connected(worker) as client:
            for message in ("text", b"bytes", "x" * 100_000):
                client.send(message)
                assert client.recv(timeout=20) == message
        worker.child.wait_to_hear("disconnected 1000")


def test_an_application_can_refuse() -> None:
    with serving(_echo) as worker:
        with pytest.raises(InvalidStatus) as caught, _connected(worker, "/closed"):
            pass
        assert caught.value.response.status_code == 403


def test_a_trusted_proxy_says_who_the_client_is() -> None:
    options = msgspec.structs.replace(OPTIONS, trusted_proxies=("127.0.0.0/8",))
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    with (
        serving(_echo, options) as worker,
        _connected(worker, headers=headers) as client,
    ):
        client.send("client")
        assert client.recv(timeout=20) == "wss 192.0.2.7"


@pytest.mark.parametrize("how", ["retire", "stop"])
def test_a_drain_says_goodbye_to_both_sides_and_does_not_wait(how: str) -> None:
    with serving(_echo) as worker, _connected(worker) as client:
        client.send("hello")
        client.recv(timeout=20)
        getattr(worker, how)()
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=20)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        worker.child.wait_to_hear("disconnected 1012")
        worker.wait()
        assert not [line for line in worker.child.heard() if line.startswith("stderr")]


def test_an_application_that_talks_on_after_the_goodbye_is_told_quietly() -> None:
    def make(child: Child) -> App:
        async def handle(_scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                pass
            for _ in range(3):
                await send({"type": "websocket.send", "text": "are you there?"})

        return app(handle)

    with serving(make) as worker, _connected(worker) as client:
        client.send("hello")
        worker.retire()
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        worker.wait()
        assert not [line for line in worker.child.heard() if line.startswith("stderr")]


def test_a_client_that_does_not_answer_the_goodbye_is_not_waited_for_beyond_the_time() -> None:
    application = msgspec.structs.replace(APPLICATION, grace_seconds=1.0)
    with serving(_echo, application=application) as worker, worker.connect() as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
        worker.retire()
        worker.wait()


def test_an_open_websocket_is_shown_on_the_scoreboard_and_is_never_overdue() -> None:
    application = msgspec.structs.replace(APPLICATION, request_timeout_seconds=0.1)
    with serving(_echo, application=application) as worker, _connected(worker, "/room") as client:
        client.send("hello")
        client.recv(timeout=20)
        line = worker.line()
        assert line.request == "GET /room"
        assert line.connections == 1
        with worker.connect() as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            other.recv(65536)
            while worker.line().progress_at < line.started_at + 0.5:
                client.send("hello")
                client.recv(timeout=20)
