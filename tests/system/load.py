"""Clients that ask without pause while a test deploys, and remember whoever failed them."""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support import WAIT_SECONDS

HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

Address = tuple[str, int] | str


def ask(address: Address, request: bytes) -> bytes:
    """One request on a connection of its own; everything that is answered."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(WAIT_SECONDS)
        client.connect(address)
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def ask_http(address: Address) -> str:
    """The body of a 200. ConnectionError for any other answer."""
    head, separator, body = ask(address, HTTP_REQUEST).partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"an answer that is none: {head[:200]!r}")
    return body.decode()


def ask_pid(address: Address) -> str:
    """The answer of a worker of examples/multi_accept after 5 ms of work."""
    answer = ask(address, b"5\n").decode()
    if not answer.strip().isdecimal():
        raise ConnectionError(f"an answer that is none: {answer!r}")
    return answer.strip()


class Load:
    """Clients in threads, each with one request at a time, from `with` to its end."""

    def __init__(self, address: Address, asking: object = ask_http, clients: int = 2) -> None:
        assert callable(asking)
        self._address = address
        self._ask = asking
        self._changed = threading.Condition()
        self._is_over = False
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def wait_for(self, answer: str, times: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Waits until that answer was given so many times from now on."""
        self._wait(lambda: self.answers[answer], times, timeout, repr(answer))

    def wait_for_any(self, times: int) -> None:
        """Waits until so many answers were given from now on, whatever they are."""
        self._wait(self.answers.total, times, WAIT_SECONDS, "enough")

    def _wait(self, count: Callable[[], int], times: int, timeout: float, what: str) -> None:
        with self._changed:
            goal = count() + times
            assert self._changed.wait_for(lambda: count() >= goal, timeout), (
                f"{what} was not answered, but {self.answers}; {self.failures[:3]}"
            )

    def _run(self) -> None:
        while not self._is_over:
            try:
                answer = self._ask(self._address)
            except OSError as problem:
                with self._changed:
                    self.failures.append(repr(problem))
                continue
            with self._changed:
                self.answers[answer] += 1
                self._changed.notify_all()
