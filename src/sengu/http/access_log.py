"""The access log: a line for each request, in whole lines and few writes.

Both interfaces use it. Lines are kept until the loop is about to wait, or until there are many. A
log that can not be written costs lines, and never a request.
"""

import base64
import contextlib
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from sengu.model.web import AccessLog
from sengu.worker.engine import LoadError

_FULL_BYTES = 1 << 16
_STDOUT = "-"
_STDOUT_FD = 1  # whatever the application has made of sys.stdout
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


class Record(msgspec.Struct, frozen=True):
    """One request, answered. `at` is when it began, in seconds since 1970; `user` as it claims."""

    client: str
    at: float
    request_line: str
    status: int
    body_bytes: int
    seconds: float
    user: str = ""
    referer: str = ""
    agent: str = ""


def user_of(authorization: str) -> str:
    """The user that an Authorization field names, if it is a Basic one (RFC 7617)."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[0]
    except ValueError:  # not base64, or not UTF-8: no user then
        return ""


def _escape(text: str) -> str:
    return text.translate(_ESCAPES) or "-"


class _Stamp:
    """The time as the common format has it, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, at: float) -> str:
        if int(at) != self._second:
            self._second = int(at)
            self._text = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(at))
        return self._text


_stamp = _Stamp()


def common(record: Record) -> str:
    """As `CustomLog common` of Apache httpd."""
    return (
        f"{record.client or '-'} - {_escape(record.user)} [{_stamp(record.at)}]"
        f' "{_escape(record.request_line)}" {record.status} {record.body_bytes or "-"}'
    )


def combined(record: Record) -> str:
    return f'{common(record)} "{_escape(record.referer)}" "{_escape(record.agent)}"'


def as_json(record: Record) -> str:
    return json.dumps(
        {
            "time": round(record.at, 6),
            "client": record.client,
            "user": record.user,
            "request": record.request_line,
            "status": record.status,
            "bytes": record.body_bytes,
            "seconds": round(record.seconds, 6),
            "referer": record.referer,
            "agent": record.agent,
        }
    )


FORMS: dict[str, Callable[[Record], str]] = {
    "common": common,
    "combined": combined,
    "json": as_json,
}


def _standard_output() -> int:
    """A pipe is opened once more, to write without waiting for whoever should read it, and to
    change nothing for those who share it."""
    if stat.S_ISFIFO(os.fstat(_STDOUT_FD).st_mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError):  # a pipe of another user
            return os.open(f"/proc/self/fd/{_STDOUT_FD}", flags)
    return _STDOUT_FD


def open_log(options: AccessLog | None) -> "Log | None":
    """The access log that is asked for, if one is. Raises LoadError."""
    if options is None:
        return None
    try:
        return Log(options)
    except OSError as error:
        raise LoadError(
            f"cannot open the access log {options.path}: {(error.strerror or '').lower()};"
            " name a file that the worker's user may write, or give it this one: chown"
        ) from error


class Log:
    """An access log that is open. Any thread may add to it; the loop flushes it before it waits.

    `lost` is how many lines could not be written.
    """

    def __init__(self, options: AccessLog) -> None:
        """Raises OSError when the file can not be opened."""
        self._path = options.path
        self._format = FORMS[options.form]
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._bytes = 0
        self._is_moved = False
        self._cut = b""  # the end of a line whose beginning is written
        self.lost = 0
        self._fd = self._open()

    def add(self, record: Record) -> None:
        line = self._format(record) + "\n"
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            is_full = self._bytes >= _FULL_BYTES
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered, in one call, so that lines of several workers do not mix."""
        if not self._lines:
            return
        with self._lock:
            if self._is_moved:
                self._begin_anew()
            data = self._cut + "".join(self._lines).encode("utf-8", "backslashreplace")
            self._lines.clear()
            self._bytes = 0
            try:
                written = os.write(self._fd, data)
            except OSError:  # a full disk, or a pipe that nobody reads
                written = 0
            is_whole = data.endswith(b"\n", 0, written) if written else not self._cut
            self._cut = b"" if is_whole else data[written : data.index(b"\n", written) + 1]
            self.lost += data.count(b"\n", written) - bool(self._cut)

    def reopen(self) -> None:
        """Begin the file anew that was moved away. It is a signal handler that says so, so it is
        done with the next flush, which this one may have interrupted."""
        self._is_moved = True

    def close(self) -> None:
        self.flush()
        if self._fd != _STDOUT_FD:
            os.close(self._fd)

    def _begin_anew(self) -> None:
        self._is_moved = False
        if self._path == _STDOUT:
            return
        try:
            fd = self._open()
        except OSError as error:  # the old one is better than none
            print(f"sengu: access log {self._path}: {error.strerror}", file=sys.stderr)
            return
        os.close(self._fd)
        self._fd = fd

    def _open(self) -> int:
        if self._path == _STDOUT:
            return _standard_output()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o644)
