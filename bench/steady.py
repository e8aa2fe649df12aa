"""A constant load: so many requests a second, half on kept connections and half on one each."""

import threading
import time
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

import msgspec

_CLIENTS = 8  # every second keeps its connection
_EVERY_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0

REQUESTS_PER_SECOND = round(_CLIENTS / _EVERY_SECONDS)


class Tally(msgspec.Struct):
    """What became of the requests. `refused`: nobody listened. `broken`: anything else but a whole
    200, such as a kept connection that was closed without a word.
    """

    answered: int = 0
    broken: int = 0
    refused: int = 0

    @property
    def failed(self) -> int:
        return self.broken + self.refused

    @property
    def all(self) -> int:
        return self.answered + self.failed


class Steady:
    """Asks a port for so many seconds; `tally` is complete when the context ends.

    A client whose request fails asks again when its next one is due, so the load is the same
    whatever happens.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self.tally = Tally()
        self._port = port
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number * _EVERY_SECONDS / _CLIENTS, keeps))
            for number, keeps in enumerate([True, False] * (_CLIENTS // 2))
        ]

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
        for thread in self._threads:
            thread.join()

    def _ask(self, delay: float, keeps: bool) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_SECONDS)
        due = time.monotonic() + delay
        while due < self._end:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + _EVERY_SECONDS, time.monotonic())
            outcome = _exchange(connection, keeps)
            with self._lock:
                setattr(self.tally, outcome, getattr(self.tally, outcome) + 1)
            if outcome != "answered" or not keeps:
                connection.close()
        connection.close()


def _exchange(connection: HTTPConnection, keeps: bool) -> str:
    """The field of the tally to which this request belongs."""
    try:
        connection.request("GET", "/", headers={} if keeps else {"Connection": "close"})
        answer = connection.getresponse()
        whole = answer.read() == b"hello\n"
    except ConnectionRefusedError:
        return "refused"
    except (OSError, HTTPException):  # reset, closed, cut short, or too late
        return "broken"
    return "answered" if whole and answer.status == 200 else "broken"
