"""The control API's client: HTTP+JSON over a UNIX socket, blocking, typed answers.

One connection for each call, so nothing is left over when an instance is replaced. The caller
says how long to wait. Imported by cli and demo, never by the long-lived processes.
"""

import http.client
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from sengu.control import api
from sengu.errors import NotRunningError, SenguError, UsageError

T = TypeVar("T")

_ANSWER_SECONDS = 10.0
_BAD_REQUEST = 400
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class NoAnswerError(SenguError):
    """Whoever we wait for has not answered in time; what was asked may still be done."""

    exit_code = 5


class ControlClient:
    """Calls one instance. Each call raises NotRunningError when nobody listens on the socket,
    NoAnswerError when no answer comes in time, SenguError with the server's words when it refuses.
    """

    def __init__(self, path: str, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self.path = path
        self._answer_seconds = answer_seconds

    def status(self) -> api.Status:
        return self._call("GET", api.STATUS_PATH, None, api.Status)

    def process_id(self) -> int:
        """The instance's pid as it is seen from here; 0 when it cannot be seen from here.

        `status` tells the instance's own idea of it, which is another number in a container.
        """
        connection = _Connection(self.path, self._answer_seconds)
        try:
            connection.connect()
            raw = connection.link.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
        except OSError as problem:
            raise self._explain(problem) from problem
        finally:
            connection.close()
        pid, _uid, _gid = _CREDENTIALS.unpack(raw)
        return int(pid)

    def reload(self) -> api.ReloadAccepted:
        """Ask for a deploy; its outcome is told by the events after the answer's `last_event`."""
        return self._call("POST", api.RELOAD_PATH, api.ReloadRequest(), api.ReloadAccepted)

    def stop(self, immediate: bool = False) -> None:
        self._call("POST", api.STOP_PATH, api.StopRequest(immediate), api.StopAccepted)

    def scale(self, workers: int) -> int:
        request = api.ScaleRequest(workers)
        return self._call("POST", api.SCALE_PATH, request, api.ScaleAccepted).workers

    def events(self, since: int | None, follow: bool) -> "EventStream":
        """Open the event stream: all kept events after `since`, then, with `follow`, new ones."""
        query = f"?follow={'true' if follow else 'false'}"
        if since is not None:
            query += f"&since={since}"
        connection = _Connection(self.path, self._answer_seconds)
        try:
            response = self._exchange(connection, "GET", api.EVENTS_PATH + query, None)
            if response.status >= _BAD_REQUEST:
                raise _refusal(response.status, response.read())
        except BaseException:  # whatever it is, the connection must not stay open
            connection.close()
            raise
        return EventStream(connection, response)

    def _call(self, method: str, path: str, request: Any, answer: type[T]) -> T:
        connection = _Connection(self.path, self._answer_seconds)
        try:
            response = self._exchange(connection, method, path, request)
            body = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise self._explain(problem) from problem
        finally:
            connection.close()
        if response.status >= _BAD_REQUEST:
            raise _refusal(response.status, body)
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.MsgspecError as problem:
            raise SenguError(
                f"{self.path} answered {method} {path} with what this sengu does not understand "
                f"({problem}); use the sengu that runs there"
            ) from problem

    def _exchange(
        self, connection: "_Connection", method: str, path: str, request: Any
    ) -> http.client.HTTPResponse:
        body = None if request is None else msgspec.json.encode(request)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as problem:
            raise self._explain(problem) from problem

    def _explain(self, problem: Exception) -> SenguError:
        if isinstance(problem, TimeoutError):
            return NoAnswerError(
                f"{self.path} has not answered within {self._answer_seconds:g} s; "
                "see whether its process is stopped or starved"
            )
        if isinstance(problem, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return NotRunningError(
                f"no instance listens on {self.path}; `sengu ls` lists those that run"
            )
        if isinstance(problem, PermissionError):
            return SenguError(
                f"{self.path} may only be used by the user whose instance it is, and by root; "
                "call sengu as that user"
            )
        if isinstance(problem, ConnectionError | http.client.RemoteDisconnected):
            return NotRunningError(f"the instance at {self.path} went away while being asked")
        return SenguError(f"{self.path} does not speak the control protocol: {problem!r}")


class EventStream:
    """An open stream of events. Use it as a context manager."""

    def __init__(self, connection: "_Connection", response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[api.Record]:
        while (record := self.read(None)) is not None:
            yield record

    def read(self, timeout_seconds: float | None) -> api.Record | None:
        """The next event; None when the stream has ended, be it that the instance died.

        Raises NoAnswerError after `timeout_seconds` without a line; the stream is then of no
        more use.
        """
        data = b""
        while True:
            line = self._read_line(timeout_seconds)
            if line is None:
                return None
            if line.startswith(b"data:"):
                data += line[5:].strip()
            elif not line.strip() and data:
                return _record(data)

    def _read_line(self, timeout_seconds: float | None) -> bytes | None:
        self._connection.link.settimeout(timeout_seconds)
        try:
            return self._response.readline() or None
        except TimeoutError:
            raise NoAnswerError(f"nothing was heard within {timeout_seconds:g} s") from None
        except (ConnectionError, http.client.HTTPException):  # cut off: it ends here
            return None


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX stream socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
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
