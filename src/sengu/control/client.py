"""The control API's client: HTTP+JSON over a UNIX socket, blocking, typed answers.

One connection for each call, so nothing is left over when an instance is replaced. The caller
says how long to wait. Imported by cli and demo, never by the long-lived processes.
"""

import http.client
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from sengu.control import api
from sengu.control.asking import (
    BAD_REQUEST,
    Connection,
    NoAnswerError,
    Question,
    ask,
    explain,
    pause,
    take_body,
)
from sengu.control.deadline import Deadline
from sengu.errors import NotRunningError, SenguError

T = TypeVar("T")

_ANSWER_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class ControlClient:
    """Calls one instance. Each call raises NotRunningError when nobody listens on the socket,
    NoAnswerError when no answer comes in time, SenguError with the server's words when it refuses.

    A call of which the answer was lost is repeated. What must not be done twice has a name.
    """

    def __init__(self, path: str, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self.path = path
        self._answer_seconds = answer_seconds

    def status(self) -> api.Status:
        return self._call(Question("GET", api.STATUS_PATH), api.Status)

    def process_id(self) -> int:
        """The instance's main pid as it is seen from here; 0 when it cannot be seen from here.

        `status` tells the instance's own idea of it, which is another number in a container.
        """
        deadline = Deadline(self._answer_seconds)
        connection = Connection(self.path, deadline.left())
        try:
            connection.connect()
            raw = connection.link.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
        except OSError as problem:
            raise explain(problem, self.path, deadline) from problem
        finally:
            connection.close()
        pid, _uid, _gid = _CREDENTIALS.unpack(raw)
        return int(pid)

    def reload(self, immediate: bool = False) -> api.ReloadAccepted:
        """Ask for a deploy; its outcome is told by the events after the answer's `last_event`."""
        request = api.ReloadRequest(token=_new_token(), immediate=immediate)
        return self._call(Question("POST", api.RELOAD_PATH, request), api.ReloadAccepted)

    def upgrade(self) -> api.UpgradeAccepted:
        """Ask for an upgrade of sengu; how it went is told by the events after `last_event`."""
        request = api.UpgradeRequest(_new_token())
        return self._call(Question("POST", api.UPGRADE_PATH, request), api.UpgradeAccepted)

    def configure(self, deadline: Deadline) -> api.ConfigureOutcome:
        """Have the configuration read anew, and wait for it. Raises SenguError if it is wrong."""
        request = api.ConfigureRequest(wait=True, token=_new_token())
        question = Question("POST", api.CONFIGURE_PATH, request)
        return self._call(question, api.ConfigureOutcome, deadline)

    def stop(self, immediate: bool = False) -> None:
        """Raises WentAwayError if it has stopped before it could answer."""
        request = api.StopRequest(immediate, _new_token())
        self._call(Question("POST", api.STOP_PATH, request), api.StopAccepted)

    def dump(self) -> api.Dump:
        """Where all its processes are. Asked twice, they write it twice: that harms nobody."""
        return self._call(Question("POST", api.DUMP_PATH), api.Dump)

    def scale(self, workers: int) -> int:
        request = api.ScaleRequest(workers)
        return self._call(Question("POST", api.SCALE_PATH, request), api.ScaleAccepted).workers

    def events(self, since: int | None, follow: bool) -> "EventStream":
        """Open the event stream: all kept events after `since`, then, with `follow`, new ones."""
        return EventStream(self.path, since, follow, Deadline(self._answer_seconds))

    def _call(self, question: "Question", answer: type[T], deadline: Deadline | None = None) -> T:
        body = ask(self.path, question, deadline or Deadline(self._answer_seconds), take_body)
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

    def _open(self, deadline: Deadline) -> tuple["Connection", http.client.HTTPResponse]:
        query = f"?follow={'true' if self._follow else 'false'}"
        if self._since is not None:
            query += f"&since={self._since}"
        return ask(self._path, Question("GET", api.EVENTS_PATH + query), deadline, _take_stream)

    def _reopen(self, deadline: Deadline) -> bool:
        """Go on where we were, with whoever listens there now; whether anybody does."""
        self._close()
        self._unread = b""  # a part of an event, which comes again
        pause()
        try:
            self._connection, self._response = self._open(deadline)
        except NotRunningError:
            return False
        return True

    def _close(self) -> None:
        self._response.close()
        self._connection.close()


def _take_stream(
    connection: Connection, response: http.client.HTTPResponse
) -> tuple[Connection, http.client.HTTPResponse]:
    if response.status >= BAD_REQUEST:
        take_body(connection, response)
    if not response.chunked:  # its head was cut off before it said so
        raise http.client.IncompleteRead(b"")
    return connection, response


def _record(data: bytes) -> api.Record:
    try:
        return api.decode_record(data)
    except msgspec.MsgspecError as problem:
        raise SenguError(
            f"an event that this sengu does not understand ({problem}); "
            "use the sengu that runs there"
        ) from problem


def _new_token() -> str:
    """A name that no other request has."""
    return os.urandom(16).hex()
