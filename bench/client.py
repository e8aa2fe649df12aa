"""An HTTP client in a few lines, for answers that have a Content-Length."""

import re
import socket
import time

from bench.session import BenchError

_ANSWER_SECONDS = 60.0
_RETRY_SECONDS = 0.0005
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class NoAnswerError(BenchError):
    """Nobody answered in time."""


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS)


def exchange(connection: socket.socket, path: str) -> bytes:
    """Ask on a connection that goes on; the body. ConnectionError for anything but a whole 200."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    length, body = read_head(connection)
    while len(body) < length:
        body += _more(connection, body)
    return body


def read_head(connection: socket.socket) -> tuple[int, bytes]:
    """The length of the body of a 200, and what of it came with the head."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _more(connection, answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    if length is None or head.split(b" ", 2)[1] != b"200":
        raise ConnectionError(f"not a 200 with a length: {head!r}")
    return int(length[1]), body


def ask(port: int, path: str) -> bytes:
    """The same on a connection of its own."""
    with connect(port) as connection:
        return exchange(connection, path)


def first_answer(port: int, path: str, deadline: float) -> bytes:
    """Ask until somebody answers, or until `deadline` (monotonic). Raises NoAnswerError."""
    while True:
        try:
            return ask(port, path)
        except ConnectionError as problem:  # nobody listens yet, or whoever did has died
            if time.monotonic() > deadline:
                raise NoAnswerError(f"no answer on port {port}: {problem}") from problem
            time.sleep(_RETRY_SECONDS)


def _more(connection: socket.socket, so_far: bytes) -> bytes:
    got = connection.recv(65536)
    if not got:
        raise ConnectionError(f"the answer ends after {so_far[-200:]!r}")
    return got
