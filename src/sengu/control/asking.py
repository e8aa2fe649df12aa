"""One question to the control API, asked until somebody has answered.

Servers come and go behind the socket, which the supervisor holds. One that dies cuts its clients
off; they ask again, and wait in the socket's queue until its successor takes them. Imported by
`control.client`.
"""

import http.client
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from sengu.control import api
from sengu.control.deadline import Deadline
from sengu.errors import NotRunningError, SenguError, UsageError

T = TypeVar("T")

BAD_REQUEST = 400
_PAUSE_SECONDS = 0.05
_NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)  # listens there


class NoAnswerError(SenguError):
    """Whoever we wait for has not answered in time; what was asked may still be done."""

    exit_code = 5


class WentAwayError(NotRunningError):
    """The instance has ended while it was being asked; what was asked may have been done."""


class Question(msgspec.Struct, frozen=True):
    """What is asked; `request` is the body, or None."""

    method: str
    target: str
    request: Any = None


class Connection(http.client.HTTPConnection):
    """HTTP over a UNIX stream socket."""

    def __init__(self, path: str, timeout_seconds: float | None) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        # http.client lets go of its own when an answer ends by closing, and it is needed for
        # timeouts as long as the answer is read.
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.link.settimeout(timeout_seconds)

    def connect(self) -> None:
        self.link.connect(self._path)
        self.sock = self.link

    def close(self) -> None:
        super().close()
        self.link.close()

    def ask(self, question: Question) -> http.client.HTTPResponse:
        body = None if question.request is None else msgspec.json.encode(question.request)
        headers = {"Content-Type": "application/json"} if body else {}
        self.request(question.method, question.target, body, headers)
        return self.getresponse()


Take = Callable[[Connection, http.client.HTTPResponse], T]


def ask(path: str, question: Question, deadline: Deadline, take: Take[T]) -> T:
    """Ask until an answer has come whole, or the time is over. Raises SenguError."""
    was_cut_off = False
    while True:
        connection = Connection(path, deadline.left())
        try:
            return take(connection, connection.ask(question))
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            if was_cut_off and isinstance(problem, _NOBODY):
                raise WentAwayError(f"the instance at {path} went away while being asked") from None
            if not _is_cut_off(problem) or deadline.is_over():
                raise explain(problem, path, deadline) from problem
        except BaseException:  # whatever it is, the connection must not stay open
            connection.close()
            raise
        was_cut_off = True
        pause()


def pause() -> None:
    """Before we ask again: one that only ever cuts us off must not be flooded."""
    time.sleep(_PAUSE_SECONDS)


def take_body(connection: Connection, response: http.client.HTTPResponse) -> bytes:
    """All of an answer. Raises SenguError with the server's words when it refuses."""
    if response.length is None:  # its head was cut off before it said so
        raise http.client.IncompleteRead(b"")
    body = response.read()
    connection.close()
    if response.status >= BAD_REQUEST:
        raise _refusal(response.status, body)
    return body


def _is_cut_off(problem: Exception) -> bool:
    """Whether the server went away when it had us, so that another may answer."""
    if isinstance(problem, http.client.BadStatusLine):  # nothing came, or a part of the line
        return not str(problem).endswith("\n")
    is_cut_off = isinstance(problem, ConnectionError | http.client.IncompleteRead)
    return is_cut_off and not isinstance(problem, _NOBODY)


def explain(problem: Exception, path: str, deadline: Deadline) -> SenguError:
    """What to tell the user who wanted to ask."""
    if isinstance(problem, TimeoutError):
        return NoAnswerError(
            f"{path} has not answered within {deadline.seconds:g} s; "
            "see whether its process is stopped or starved"
        )
    if isinstance(problem, _NOBODY):
        return NotRunningError(f"no instance listens on {path}; `sengu ls` lists those that run")
    if isinstance(problem, PermissionError):
        return SenguError(
            f"{path} may only be used by the user whose instance it is, and by root; "
            "call sengu as that user"
        )
    if _is_cut_off(problem):
        return NoAnswerError(
            f"{path} has let go of us whenever it was asked, for {deadline.seconds:g} s; "
            "see the instance's log"
        )
    return SenguError(f"{path} does not speak the control protocol: {problem!r}")


def _refusal(status: int, body: bytes) -> SenguError:
    try:
        words = msgspec.json.decode(body, type=api.Problem).error
    except msgspec.MsgspecError:
        words = f"the instance answered with HTTP status {status}: {body[:200]!r}"
    return UsageError(words) if status == BAD_REQUEST else SenguError(words)
