"""TLS, and the PROXY header in front of it, on an ASGI worker."""

import contextlib
import json
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import msgspec
import pytest

from sengu.http.asgi.types import App, Receive, Scope, Send
from sengu.http.proxy import V2_SIGNATURE
from sengu.model.web import Limits, Timeouts, Tls
from tests.kernel.asgi_worker import (
    OPTIONS,
    Worker,
    app,
    receive_all,
    receive_until,
    respond,
    serving,
)
from tests.kernel.children import Child
from tests.support import requires

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PROXIED = msgspec.structs.replace(
    OPTIONS, trusted_proxies=("127.0.0.0/8", "unix"), proxy_protocol=True
)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
V2 = V2_SIGNATURE + struct.pack(
    "!BBH4s4sHH",
    0x21,
    0x11,
    12,
    socket.inet_aton("192.0.2.7"),
    socket.inet_aton("198.51.100.1"),
    4711,
    443,
)
SHORT = b"PROXY UNKNOWN\r\n"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = (
        f"{requires('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        f" -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return Tls(str(certificate), str(key))


def show_scope(_child: Child) -> App:
    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        shown = {name: scope[name] for name in ("scheme", "client", "server")}
        await respond(send, json.dumps(shown).encode())

    return app(handle)


def _tls_client(worker: Worker, tls: Tls, before: bytes = b"") -> ssl.SSLSocket:
    """A client that sends `before` in front of its handshake."""
    context = ssl.create_default_context(cafile=tls.certificate)
    plain = worker.connect()
    plain.sendall(before)
    return context.wrap_socket(plain, server_hostname="localhost")


def _scope_in(answer: bytes) -> dict[str, object]:
    shown: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return shown


def test_https_is_served_and_ended_politely(tls: Tls) -> None:
    with (
        serving(show_scope, msgspec.structs.replace(OPTIONS, tls=tls)) as worker,
        _tls_client(worker, tls) as client,
    ):
        client.sendall(GET)
        assert _scope_in(receive_all(client))["scheme"] == "https"


def test_an_idle_https_connection_is_served_once_more_by_a_retiring_worker(tls: Tls) -> None:
    with (
        serving(show_scope, msgspec.structs.replace(OPTIONS, tls=tls)) as worker,
        _tls_client(worker, tls) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(client, b"}")
        worker.retire()
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"connection: close" in receive_all(client)
        worker.wait()


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01", b""])
def test_who_does_not_speak_tls_harms_nobody(tls: Tls, data: bytes) -> None:
    timeouts = Timeouts(header_seconds=3.0)
    options = msgspec.structs.replace(OPTIONS, tls=tls, timeouts=timeouts)
    with serving(show_scope, options) as worker:
        with worker.connect() as plain:
            plain.sendall(data)
            assert b"HTTP" not in receive_all(plain)
        with _tls_client(worker, tls) as client:
            client.sendall(GET)
            assert receive_all(client).startswith(b"HTTP/1.1 200 ")
        assert not [line for line in worker.child.heard() if line.startswith("stderr")]


def test_who_leaves_before_his_handshake_makes_room_for_others(tls: Tls) -> None:
    options = msgspec.structs.replace(OPTIONS, tls=tls, limits=Limits(connections=1))
    with serving(show_scope, options) as worker:
        with worker.connect() as plain:
            plain.sendall(GET)
            receive_all(plain)
        with _tls_client(worker, tls) as client:
            client.sendall(GET)
            assert receive_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("pause", [False, True], ids=["whole", "in pieces"])
def test_a_proxy_header_says_who_is_connected(header: bytes, pause: bool) -> None:
    with serving(show_scope, PROXIED) as worker, worker.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pause:
            for one in header + GET:
                client.send(bytes([one]))
        else:
            client.sendall(header + GET)
        shown = _scope_in(receive_all(client))
        assert shown["client"] == ["192.0.2.7", 4711]
        assert shown["server"] == ["198.51.100.1", 443]


def test_a_proxy_header_may_precede_tls(tls: Tls) -> None:
    with (
        serving(show_scope, msgspec.structs.replace(PROXIED, tls=tls)) as worker,
        _tls_client(worker, tls, V1) as client,
    ):
        client.sendall(GET)
        assert _scope_in(receive_all(client))["client"] == ["192.0.2.7", 4711]


def test_a_proxy_header_comes_by_a_unix_socket_too(tmp_path: Path) -> None:
    with (
        serving(show_scope, PROXIED, path=tmp_path / "socket") as worker,
        worker.connect() as client,
    ):
        client.sendall(V1 + GET)
        assert _scope_in(receive_all(client))["client"] == ["192.0.2.7", 4711]


def test_a_proxy_that_speaks_for_itself_is_served() -> None:
    with serving(show_scope, PROXIED) as worker, worker.connect() as client:
        client.sendall(SHORT + GET)
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("data", [GET, b"PROXY TCP4 nonsense\r\n", b""])
def test_a_trusted_proxy_without_its_header_is_not_served(data: bytes) -> None:
    options = msgspec.structs.replace(PROXIED, timeouts=Timeouts(header_seconds=0.2))
    with serving(show_scope, options) as worker, worker.connect() as client:
        client.sendall(data)
        with contextlib.suppress(ConnectionResetError):  # what it said was not read
            assert receive_all(client) == b""


def test_a_proxy_header_from_others_is_a_malformed_request() -> None:
    options = msgspec.structs.replace(PROXIED, trusted_proxies=("192.0.2.0/24",))
    with serving(show_scope, options) as worker, worker.connect() as client:
        client.sendall(V1 + GET)
        assert receive_all(client).startswith(b"HTTP/1.1 400 ")
