"""What stands before and beside the application: TLS, proxies, the access log."""

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sengu.http.proxy import V2_SIGNATURE
from sengu.http.tls import load_context
from sengu.model.web import AccessLog, Timeouts, Tls, WebOptions
from sengu.worker.engine import LoadError
from sengu.worker.runtime import Stopping
from tests.kernel.http_worker import Client, Environ, Worker, serving
from tests.support import requires

TEXT = ("Content-Type", "text/plain")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LOCAL = ("127.0.0.0/8",)
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n"
V2 = (
    V2_SIGNATURE
    + struct.pack("!BBH", 0x21, 0x11, 12)
    + socket.inet_aton("192.0.2.1")
    + socket.inet_aton("198.51.100.1")
    + struct.pack("!HH", 4711, 443)
)


def show(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "HTTPS")
    shown = {name: environ.get(name) for name in (*names, "wsgi.url_scheme")}
    if environ["PATH_INFO"] == "/large":
        shown["padding"] = "x" * 3_000_000
    elif environ["PATH_INFO"] == "/echo":
        shown["body"] = environ["wsgi.input"].read().decode()
    start_response("200 OK", [TEXT])
    return [json.dumps(shown).encode()]


def shown(client: Client, request: bytes = GET) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.ask(request).body)
    return found


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


def encrypt(worker: Worker, client: Client, tls: Tls) -> Client:
    context = ssl.create_default_context(cafile=tls.certificate)
    encrypted = context.wrap_socket(client.socket, server_hostname="localhost")
    worker.clients.callback(encrypted.close)
    return Client(encrypted)


@pytest.mark.parametrize("threads", [1, 2])
def test_https_is_served(tls: Tls, threads: int) -> None:
    with serving(show, WebOptions("tests:app", tls=tls, threads=threads)) as worker:
        client = encrypt(worker, worker.connect(), tls)
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() in {"TLSv1.2", "TLSv1.3"}
        found = shown(client)
        assert (found["wsgi.url_scheme"], found["HTTPS"]) == ("https", "on")
        assert len(client.get("/large").body) > 3_000_000
        body = b"y" * 500_000
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert shown(client, head + body)["body"] == body.decode()
        client.send(GET * 20)
        assert {client.answer().status for _ in range(20)} == {200}
        assert client.get("/", "Connection: close").status == 200
        assert client.rest() == b""  # an end without a farewell would raise ssl.SSLEOFError


def test_a_file_is_sent_over_tls_too(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"z" * 1_000_000)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "1000000")])
        return environ["wsgi.file_wrapper"](open(tmp_path / "file", "rb"))

    with serving(app, WebOptions("tests:app", tls=tls)) as worker:
        assert encrypt(worker, worker.connect(), tls).get().body == b"z" * 1_000_000


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01", b""])
def test_who_does_not_speak_tls_harms_nobody(tls: Tls, data: bytes) -> None:
    with serving(show, WebOptions("tests:app", tls=tls)) as worker:
        worker.connect().send(data)
        assert encrypt(worker, worker.connect(), tls).get().status == 200


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01", b""])
def test_who_does_not_speak_tls_is_hung_up_on(tls: Tls, data: bytes) -> None:
    options = WebOptions("tests:app", tls=tls, timeouts=Timeouts(header_seconds=0.2))
    with serving(show, options) as worker:
        plain = worker.connect()
        plain.send(data)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.rest()


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01"])
def test_who_is_gone_before_he_is_accepted_harms_nobody(tls: Tls, data: bytes) -> None:
    entered, gate = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        entered.set()
        assert gate.wait(20)
        return show(environ, start_response)

    with serving(app, WebOptions("tests:app", tls=tls)) as worker:
        busy = encrypt(worker, worker.connect(), tls)
        busy.send(GET)
        assert entered.wait(20)
        gone = worker.connect().socket
        gone.sendall(data)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        gate.set()
        assert busy.answer().status == 200
        assert encrypt(worker, worker.connect(), tls).get().status == 200


def test_an_old_version_of_tls_is_refused(tls: Tls) -> None:
    context = ssl.create_default_context(cafile=tls.certificate)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(show, WebOptions("tests:app", tls=tls)) as worker:
        client = worker.connect()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(client.socket, server_hostname="localhost")


def test_an_encrypted_connection_drains_like_others(tls: Tls) -> None:
    with serving(show, WebOptions("tests:app", tls=tls)) as worker:
        client = encrypt(worker, worker.connect(), tls)
        assert client.get().status == 200
        worker.runtime.stop(Stopping.RETIRE)
        assert client.get().fields["connection"] == "close"
        assert client.rest() == b""
        client.socket.close()
        worker.wait()


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        (
            "nowhere.pem",
            None,
            "cannot read nowhere.pem: no such file or directory; give a PEM file",
        ),
        ("{cert}", "nowhere.pem", "cannot read nowhere.pem"),
        ("{cert}", None, "there is no certificate or no private key in it"),
        ("{text}", None, "cannot use {text}"),
        ("{cert}", "{other}", "the key is not the certificate's"),
        ("{cert}", "{locked}", "the key needs a password"),
    ],
)
def test_a_certificate_that_can_not_be_used_is_explained(
    tls: Tls, tmp_path: Path, certificate: str, key: str | None, problem: str
) -> None:
    openssl = requires("openssl")
    names = {
        "cert": tls.certificate,
        "text": str(tmp_path / "text"),
        "other": str(tmp_path / "other"),
        "locked": str(tmp_path / "locked"),
    }
    Path(names["text"]).write_text("hello")
    generate = f"{openssl} genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out"
    subprocess.run(f"{generate} {names['other']}".split(), check=True, capture_output=True)
    subprocess.run(
        f"{generate} {names['locked']} -aes256 -pass pass:secret".split(),
        check=True,
        capture_output=True,
    )
    with pytest.raises(LoadError) as caught:
        load_context(Tls(certificate.format(**names), key.format(**names) if key else None))
    assert problem.format(**names) in str(caught.value)


def test_a_trusted_proxy_says_who_the_client_is() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: example.com\r\n\r\n"
    )
    with serving(show, WebOptions("tests:app", trusted_proxies=LOCAL)) as worker:
        client = worker.connect()
        for _ in range(4):
            found = shown(client, request)
            assert found["REMOTE_ADDR"] == "192.0.2.1"
            assert found["wsgi.url_scheme"] == "https"
            assert found["HTTP_HOST"] == "example.com"
            assert shown(client)["REMOTE_ADDR"] == "127.0.0.1"
    with serving(show, WebOptions("tests:app", trusted_proxies=("10.0.0.0/8",))) as worker:
        found = shown(worker.connect(), request)
        assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("piece", [1, 20, 1000])
def test_the_proxy_protocol_says_who_the_client_is(
    tls: Tls, header: bytes, encrypted: bool, piece: int
) -> None:
    options = WebOptions(
        "tests:app",
        trusted_proxies=LOCAL,
        proxy_protocol=True,
        tls=tls if encrypted else None,
    )
    with serving(show, options) as worker:
        client = worker.connect()
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(header), piece):
            client.send(header[at : at + piece])
        if encrypted:
            client = encrypt(worker, client, tls)
        for _ in range(3):
            found = shown(client)
            assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("192.0.2.1", "4711")
            assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("198.51.100.1", "443")


def test_header_and_request_may_come_together() -> None:
    options = WebOptions("tests:app", trusted_proxies=LOCAL, proxy_protocol=True)
    with serving(show, options) as worker:
        assert shown(worker.connect(), V1 + GET)["REMOTE_ADDR"] == "192.0.2.1"
        assert shown(worker.connect(), b"PROXY UNKNOWN\r\n" + GET)["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("data", [GET, b"PROXY nonsense\r\n", b"PROXY"])
def test_a_trusted_peer_without_a_proxy_header_is_hung_up_on(data: bytes) -> None:
    timeouts = Timeouts(header_seconds=0.2)
    options = WebOptions("tests:app", trusted_proxies=LOCAL, proxy_protocol=True, timeouts=timeouts)
    with serving(show, options) as worker:
        client = worker.connect()
        client.send(data)
        with contextlib.suppress(ConnectionResetError):
            assert client.rest() == b""


def test_a_proxy_header_of_a_stranger_is_no_request() -> None:
    options = WebOptions("tests:app", trusted_proxies=("10.0.0.0/8",), proxy_protocol=True)
    with serving(show, options) as worker:
        assert worker.connect().ask(V1 + GET).status == 400
        assert worker.connect().get().status == 200


def test_each_request_is_in_the_access_log_when_it_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options = WebOptions("tests:app", access_log=AccessLog(str(path), "json"))
    with serving(show, options) as worker:
        client = worker.connect()
        size = len(client.get("/a?b=c", "User-Agent: me", "Referer: http://y/").body)
        client.ask(b"HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n", is_head=True)
        client.ask(b"NONSENSE\r\n\r\n")
        worker.connect().get("/in-a-later-round")
        path.rename(tmp_path / "access.log.1")
        for call in worker.runtime.on_reopen:
            call()
        worker.connect().get("/after")
    moved = (tmp_path / "access.log.1").read_text().splitlines()
    first, head, refused, *_ = map(json.loads, moved)
    assert (first["request"], first["status"], first["bytes"]) == ("GET /a?b=c HTTP/1.1", 200, size)
    assert (first["client"], first["agent"], first["referer"]) == ("127.0.0.1", "me", "http://y/")
    assert 0 <= first["seconds"] < 10
    assert (head["request"], head["status"], head["bytes"]) == ("HEAD /h HTTP/1.1", 200, 0)
    assert (refused["request"], refused["status"]) == ("NONSENSE", 400)
    after = json.loads(path.read_text().splitlines()[-1])
    assert after["request"] == "GET /after HTTP/1.1"


def test_a_refused_request_is_in_the_access_log_by_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options = WebOptions("tests:app", access_log=AccessLog(str(path), "json"))
    with serving(show, options) as worker:
        client = worker.connect()
        client.send(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\n\r\n")
        assert [client.answer().status for _ in range(2)] == [200, 400]
        client = worker.connect()
        client.send(b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na")
        assert client.ask(b"bc").status == 400
    lines = map(json.loads, path.read_text().splitlines())
    assert [(line["request"].split(" ")[1], line["status"]) for line in lines] == [
        ("/first", 200),
        ("/second", 400),
        ("/body", 400),
    ]
