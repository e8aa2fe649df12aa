"""Clients that ask without pause, and keep an account of each request that was not answered."""

import socket
import threading
import time
from itertools import count
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 0.004
_MOST_BYTES = 20_000


class Failure(NamedTuple):
    """A request without an answer. `port` is the client's own, 0 if it was never connected; times
    are monotonic.
    """

    port: int
    opened_at: float
    failed_at: float
    problem: str
    last_pid: int  # who has answered on the connection before; 0: nobody

    def __str__(self) -> str:
        before = f"after answers of {self.last_pid}" if self.last_pid else "the first one"
        age = self.failed_at - self.opened_at
        return f"port {self.port}, {age:.3f} s old, {before}: {self.problem}"


class Answer(NamedTuple):
    pid: int
    generation: int
    closes: bool


class WrongAnswer(Exception):
    """An answer that is not the one to the question."""


class Connection:
    """One connection to the service. Raises OSError when there is no answer."""

    def __init__(self, port: int) -> None:
        self.opened_at = time.monotonic()
        self.last_pid = 0
        self._socket = socket.socket()
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self.port = 0
        self._server = ("127.0.0.1", port)

    def ask(self, token: str, body: bytes, size: int, *, keep: bool) -> Answer:
        if not self.port:
            self._socket.connect(self._server)
            self.port = int(self._socket.getsockname()[1])
        close = "" if keep else "Connection: close\r\n"
        head = f"POST /{token}?{size} HTTP/1.1\r\nHost: chaos\r\n{close}"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        fields, text = self._receive()
        answer = _read(text, token, len(body), size, closes=b"\r\nconnection: close" in fields)
        if self.last_pid not in (0, answer.pid):
            raise WrongAnswer(f"{answer.pid} answers on a connection of {self.last_pid}")
        self.last_pid = answer.pid
        return answer

    def _receive(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(data)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = head.lower()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(repr(data[:500]))
        length = int(fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._more(body)
        return fields, body

    def _more(self, so_far: bytes) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError(f"closed after {len(so_far)} bytes")
        return data

    def close(self) -> None:
        self._socket.close()


def _read(text: bytes, token: str, sent: int, size: int, *, closes: bool) -> Answer:
    line, _, rest = text.partition(b"\n")
    found, received, pid, generation = line.decode().split(" ")
    if (found, int(received)) != (token, sent) or rest != b"x" * size:
        raise WrongAnswer(f"{text[:200]!r} to {token} with {sent} bytes, for {size}")
    return Answer(int(pid), int(generation), closes)


class Load:
    """So many clients who keep their connections, and as many with one for each request."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._changed = threading.Condition()
        self.failures: list[Failure] = []
        self.wrong: list[str] = []
        self.answered = 0
        self.pids: set[int] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(number, number < clients), daemon=True)
            for number in range(2 * clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int) -> None:
        """So many from now on."""
        with self._changed:
            goal = self.answered + number
            if not self._changed.wait_for(lambda: self.answered >= goal, _TIMEOUT_SECONDS):
                raise AssertionError(f"{goal - self.answered} of {number} answers are missing")

    def _run(self, number: int, keep: bool) -> None:
        random = Random(number)
        connection: Connection | None = None
        for serial in count():
            if self._over.wait(_PAUSE_SECONDS):
                break
            connection = connection or Connection(self._port)
            body = b"b" * (random.choice((0, 10, _MOST_BYTES)))
            size = random.choice((0, 10, _MOST_BYTES))
            try:
                answer = connection.ask(f"t{number}-{serial}", body, size, keep=keep)
            except (OSError, ValueError, WrongAnswer) as problem:
                self._fail(connection, problem)
                connection.close()
                connection = None
                continue
            with self._changed:
                self.answered += 1
                self.pids.add(answer.pid)
                self._changed.notify_all()
            if answer.closes or not keep:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _fail(self, connection: Connection, problem: Exception) -> None:
        with self._changed:
            if not isinstance(problem, OSError):
                self.wrong.append(repr(problem))
            self.failures.append(
                Failure(
                    connection.port,
                    connection.opened_at,
                    time.monotonic(),
                    repr(problem),
                    connection.last_pid,
                )
            )
