"""The control API's client: HTTP+JSON over a UNIX socket, blocking, typed answers.

One connection for each call, so nothing is left over when an instance is replaced. The caller
says how long to wait. Imported by cli and demo, never by the long-lived processes.

Servers come and go behind the socket, which the supervisor holds. One that dies cuts its clients
off; they ask again, and wait in the socket's queue until its successor takes them.
"""

import http.client
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from sengu.control import api
from sengu.control.deadline import Deadline
from sengu.errors import NotRunningError, SenguError, UsageError

T = TypeVar("T")

_ANSWER_SECONDS = 10.0
_PAUSE_SECONDS = 0.05  # before we ask again: one that only ever cuts us off must not be flooded
_BAD_REQUEST = 400
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)
_NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)  # listens there


class NoAnswerError(SenguError):
    """Whoever we wait for has not answered in time; what was asked may still be done."""

    exit_code = 5


class WentAwayError(NotRunningError):
    """The instance has ended while it was being asked; what was asked may have been done."""


class ControlClient:
    """Calls one instance. Each call raises NotRunningError when nobody listens on the socket,
    NoAnswerError when no answer comes in time, SenguError with the server's words when it refuses.

    A call of which the answer was lost is repeated. What must not be done twice has a name.
    """

    def __init__(self, path: str, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self.path = path
        self._answer_seconds = answer_seconds

    def status(self) -> api.Status:
        return self._call(_Question("GET", api.STATUS_PATH), api.Status)

    def process_id(self) -> int:
        """The instance's main pid as it is seen from here; 0 when it cannot be seen from here.

        `status` tells the instance's own idea of it, which is another number in a container.
        """
        deadline = Deadline(self._answer_seconds)
        connection = _Connection(self.path, deadline.left())
        try:
            connection.connect()
            raw = connection.link.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
        except OSError as problem:
            raise _explain(problem, self.path, deadline) from problem
        finally:
            connection.close()
        pid, _uid, _gid = _CREDENTIALS.unpack(raw)
        return int(pid)

    def reload(self) -> api.ReloadAccepted:
        """Ask for a deploy; its outcome is told by the events after the answer's `last_event`."""
        request = api.ReloadRequest(token=_new_token())
        return self._call(_Question("POST", api.RELOAD_PATH, request), api.ReloadAccepted)

    def upgrade(self) -> api.UpgradeAccepted:
        """Ask for an upgrade of sengu; how it went is told by the events after `last_event`."""
        request = api.UpgradeRequest(_new_token())
        return self._call(_Question("POST", api.UPGRADE_PATH, request), api.UpgradeAccepted)

    def stop(self, immediate: bool = False) -> None:
        """Raises WentAwayError if it has stopped before it could answer."""
        request = api.StopRequest(immediate)
        self._call(_Question("POST", api.STOP_PATH, request), api.StopAccepted)

    def scale(self, workers: int) -> int:
        request = api.ScaleRequest(workers)
        return self._call(_Question("POST", api.SCALE_PATH, request), api.ScaleAccepted).workers

    def events(self, since: int | None, follow: bool) -> "EventStream":
        """Open the event stream: all kept events after `since`, then, with `follow`, new ones."""
        return EventStream(self.path, since, follow, Deadline(self._answer_seconds))

    def _call(self, question: "_Question", answer: type[T]) -> T:
        body = _ask(self.path, question, Deadline(self._answer_seconds), _take_body)
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.MsgspecError as problem:
            raise SenguError(
                f"{self.path} answered {question.method} {question.target} with what this sengu "
                f"does not understand ({problem}); use the sengu that runs there"
            ) from problem


class EventStream:
    """The events, from one server after the other. Use it as a context manager."""

    def __init__(self, path: str, since: int | None, follow: bool, deadline: Deadline) -> None:
        """Raises SenguError as calls do."""
        self._path = path
        self._since = since
        self._follow = follow
        self._unread = b""
        self._connection, self._response = self._open(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[api.Record]:
        while (record := self.read(None)) is not None:
            yield record

    def read(self, timeout_seconds: float | None) -> api.Record | None:
        """The next event; None when all is told, or nobody listens on the socket any more.

        Raises NoAnswerError after `timeout_seconds`; the stream is then of no more use.
        """
        deadline = Deadline(timeout_seconds)
        while True:
            frame, is_whole, rest = self._unread.partition(b"\n\n")
            if is_whole:
                self._unread = rest
                record = self._take(frame)
                if record is not None:
                    return record
                continue
            piece = self._read_piece(deadline)
            is_told = piece == b"" and not self._follow
            if piece:
                self._unread += piece
            elif is_told or not self._reopen(deadline):
                return None

    def _take(self, frame: bytes) -> api.Record | None:
        data = b""
        for line in frame.splitlines():
            if line.startswith(b"id:"):
                self._since = int(line[3:])
            elif line.startswith(b"data:"):
                data += line[5:].strip()
        return _record(data) if data else None

    def _read_piece(self, deadline: Deadline) -> bytes | None:
        """Empty at the end of the answer; None when it was cut off."""
        self._connection.link.settimeout(deadline.left())
        try:
            return self._response.read1()
        except TimeoutError:
            raise NoAnswerError(f"nothing was heard within {deadline.seconds:g} s") from None
        except (ConnectionError, http.client.HTTPException):
            return None

    def _open(self, deadline: Deadline) -> tuple["_Connection", http.client.HTTPResponse]:
        query = f"?follow={'true' if self._follow else 'false'}"
        if self._since is not None:
            query += f"&since={self._since}"
        return _ask(self._path, _Question("GET", api.EVENTS_PATH + query), deadline, _take_stream)

    def _reopen(self, deadline: Deadline) -> bool:
        """Go on where we were, with whoever listens there now; whether anybody does."""
        self._close()
        self._unread = b""  # a part of an event, which comes again
        time.sleep(_PAUSE_SECONDS)
        try:
            self._connection, self._response = self._open(deadline)
        except NotRunningError:
            return False
        return True

    def _close(self) -> None:
        self._response.close()
        self._connection.close()


class _Question(msgspec.Struct, frozen=True):
    method: str
    target: str
    request: Any = None


class _Connection(http.client.HTTPConnection):
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

    def ask(self, question: _Question) -> http.client.HTTPResponse:
        body = None if question.request is None else msgspec.json.encode(question.request)
        headers = {"Content-Type": "application/json"} if body else {}
        self.request(question.method, question.target, body, headers)
        return self.getresponse()


_Take = Callable[[_Connection, http.client.HTTPResponse], T]


def _ask(path: str, question: _Question, deadline: Deadline, take: _Take[T]) -> T:
    """Ask until an answer has come whole, or the time is over. Raises SenguError."""
    was_cut_off = False
    while True:
        connection = _Connection(path, deadline.left())
        try:
            return take(connection, connection.ask(question))
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            if was_cut_off and isinstance(problem, _NOBODY):
                raise WentAwayError(f"the instance at {path} went away while being asked") from None
            if not _is_cut_off(problem) or deadline.is_over():
                raise _explain(problem, path, deadline) from problem
        except BaseException:  # whatever it is, the connection must not stay open
            connection.close()
            raise
        was_cut_off = True
        time.sleep(_PAUSE_SECONDS)


def _take_body(connection: _Connection, response: http.client.HTTPResponse) -> bytes:
    if response.length is None:  # its head was cut off before it said so
        raise http.client.IncompleteRead(b"")
    body = response.read()
    connection.close()
    if response.status >= _BAD_REQUEST:
        raise _refusal(response.status, body)
    return body


def _take_stream(
    connection: _Connection, response: http.client.HTTPResponse
) -> tuple[_Connection, http.client.HTTPResponse]:
    if response.status >= _BAD_REQUEST:
        _take_body(connection, response)
    if not response.chunked:  # its head was cut off before it said so
        raise http.client.IncompleteRead(b"")
    return connection, response


def _is_cut_off(problem: Exception) -> bool:
    """Whether the server went away when it had us, so that another may answer."""
    if isinstance(problem, http.client.BadStatusLine):  # nothing came, or a part of the line
        return not str(problem).endswith("\n")
    is_cut_off = isinstance(problem, ConnectionError | http.client.IncompleteRead)
    return is_cut_off and not isinstance(problem, _NOBODY)


def _explain(problem: Exception, path: str, deadline: Deadline) -> SenguError:
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


def _record(data: bytes) -> api.Record:
    try:
        return api.decode_record(data)
    except msgspec.MsgspecError as problem:
        raise SenguError(
            f"an event that this sengu does not understand ({problem}); "
            "use the sengu that runs there"
        ) from problem


def _refusal(status: int, body: bytes) -> SenguError:
    try:
        words = msgspec.json.decode(body, type=api.Problem).error
    except msgspec.MsgspecError:
        words = f"the instance answered with HTTP status {status}: {body[:200]!r}"
    return UsageError(words) if status == _BAD_REQUEST else SenguError(words)


def _new_token() -> str:
    """A name that no other request has."""
    return os.urandom(16).hex()
