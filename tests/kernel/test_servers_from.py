"""Servers of the standard library on sockets that are there already."""

import http.server
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sengu.work.servers import server_from
from tests.kernel.children import nothing_left_open


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(100))


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:  # else pytest would never end
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("server_class", [None, socketserver.ThreadingTCPServer])
def test_a_tcp_server_serves_the_socket_that_is_there(
    server_class: type[socketserver.TCPServer] | None,
) -> None:
    with nothing_left_open():
        sock = socket.create_server(("127.0.0.1", 0))
        address = sock.getsockname()
        with (
            serving(server_from(sock, Echo, server_class)),
            closing(socket.create_connection(address)) as client,
        ):
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"


def test_two_servers_of_one_socket_both_end_when_they_are_told_to() -> None:
    """Each is woken for a connection that the other may have taken."""
    with nothing_left_open():
        sock = socket.create_server(("127.0.0.1", 0))
        address = sock.getsockname()
        other = socket.socket(fileno=os.dup(sock.fileno()))
        with serving(server_from(sock, Echo)), serving(server_from(other, Echo)):
            for _ in range(50):
                with socket.create_connection(address) as client:
                    client.sendall(b"hello")
                    assert client.recv(100) == b"hello"


def test_a_udp_socket_gets_a_udp_server() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    address = sock.getsockname()
    with (
        serving(server_from(sock, EchoDatagram)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(address)
        client.send(b"hello")
        assert client.recv(100) == b"hello"


def test_a_unix_socket_gets_a_server_too(free_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(free_path / "app.sock"))
    sock.listen()
    with serving(server_from(sock, Echo)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(free_path / "app.sock"))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_an_http_server_knows_its_name_and_port() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    server = server_from(sock, Page, http.server.ThreadingHTTPServer)
    assert isinstance(server, http.server.HTTPServer)
    assert (server.server_name, server.server_port) == address
    with serving(server), socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.0 204")
