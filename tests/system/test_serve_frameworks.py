"""Real applications of seven frameworks, served as their users would."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from websockets.sync.client import connect as open_websocket

from tests.ports import free_port
from tests.support import WAIT_SECONDS, Instance, Sengu
from tests.system.puppets import Gate
from tests.system.web import CHECKOUT, ENVIRONMENT, Client, connect, fetch, get_request, read_all

WSGI = ("flask", "django", "falcon", "bottle")
ASGI = ("starlette", "fastapi", "litestar")
# Its logger is a thread, which is started when the application is imported.
OPTIONS = {"litestar": ("--no-preload",)}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


class Shop(NamedTuple):
    instance: Instance
    port: int


@pytest.fixture(scope="module")
def sengu() -> Iterator[Sengu]:
    """One for all tests of this module, since frameworks take their time to be imported."""
    runner = Sengu()
    yield runner
    runner.close()


@pytest.fixture(scope="module", params=WSGI + ASGI)
def shop(request: pytest.FixtureRequest, sengu: Sengu) -> Iterator[Shop]:
    port = free_port()
    listen = ("--listen", f"127.0.0.1:{port}", "--workers", "2")
    options = (*listen, *OPTIONS.get(request.param, ()))
    instance = sengu.serve(
        f"tests.system.apps.shop_{request.param}:app", *options, cwd=CHECKOUT, env=ENVIRONMENT
    )
    yield Shop(instance.wait_ready(), port)
    assert instance.stop() == 0


def test_a_name_in_the_path_arrives_whatever_its_letters(shop: Shop) -> None:
    for name in ("Ise", "伊勢 神宮", "ü+?%"):
        response = fetch(shop.port, f"/hello/{quote(name)}")
        assert (response.status, response.text) == (200, f"hello {name}")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_json_is_posted_and_answered(shop: Shop) -> None:
    numbers = list(range(15_000))  # more than one piece, and less than the limit of Bottle
    response = fetch(shop.port, "/sum", json.dumps({"numbers": numbers}).encode(), JSON)
    assert response.status == 200
    assert json.loads(response.text) == {"sum": sum(numbers)}
    assert response.headers["Content-Type"].startswith("application/json")


def test_a_form_is_posted(shop: Shop) -> None:
    response = fetch(shop.port, "/form", f"name={quote('伊勢')}&other=1".encode(), FORM)
    assert (response.status, response.text) == (200, "伊勢")


def test_the_application_knows_its_address_and_its_client(shop: Shop) -> None:
    response = fetch(shop.port, "/where?a=b%20c")
    assert response.text == f"http://127.0.0.1:{shop.port}/where?a=b%20c from 127.0.0.1"


def test_a_stream_arrives_piece_by_piece(shop: Shop, free_path: Path) -> None:
    gate = Gate(free_path)
    with connect(
        shop.port, get_request(f"/pieces?gate={gate.path}", "Connection: close")
    ) as client:
        text = b""
        while b"first" not in text:
            text += client.recv(4096)
        assert b"second" not in text
        gate.wait_for_somebody()
        gate.open()
        text += read_all(client)
    head, _, body = text.lower().partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert body == b"6\r\nfirst\n\r\n7\r\nsecond\n\r\n0\r\n\r\n"


def test_what_is_not_there_is_404(shop: Shop) -> None:
    assert fetch(shop.port, "/nowhere").status == 404


def test_an_error_is_500_its_traceback_is_in_the_log_and_the_worker_goes_on(shop: Shop) -> None:
    seen = len(shop.instance.lines)
    with Client(shop.port) as client:
        assert client.fetch("/error").status == 500
        shop.instance.wait_for_line("RuntimeError: out of stock", after=seen)
        assert client.fetch("/hello/again").text == "hello again"


@pytest.mark.parametrize("shop", ASGI, indirect=True)
def test_a_websocket_talks(shop: Shop) -> None:
    with open_websocket(f"ws://127.0.0.1:{shop.port}/echo", open_timeout=WAIT_SECONDS) as socket:
        for text in ("one", "伊勢", "x" * 100_000):
            socket.send(text)
            assert socket.recv(WAIT_SECONDS) == f"echo {text}"


def test_a_deploy_goes_by_without_a_lost_request(shop: Shop) -> None:
    with Client(shop.port) as client:
        assert client.fetch("/hello/one").status == 200
        done = shop.instance.cli("reload", "--timeout", str(WAIT_SECONDS))
        assert done.returncode == 0, done.stderr
        # The connection was idle all the time: the old worker answers, and says that it ends.
        response = client.fetch("/hello/two")
        assert (response.text, response.headers["Connection"].lower()) == ("hello two", "close")
        assert client.fetch("/hello/three").headers.get("Connection") != "close"
