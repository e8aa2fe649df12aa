"""The head of an answer as text: status line, the server's own fields, the application's.

What an application says is checked here, before anything of it is sent. On the path of every
request, so what does not change is made once. Pure; used by `response`.
"""

import re
from collections.abc import Iterable
from email.utils import formatdate

from sengu.http.head import REASONS

Headers = Iterable[tuple[str, str]]

# What is remembered may come from clients, by way of the application.
_MAX_KNOWN = 512
_MAX_KNOWN_LENGTH = 200
_STATUS = re.compile(r"[2-5][0-9][0-9] [\t\x20-\x7e\xa0-\xff]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# What a header field is to us. PLAIN is false: most are. Two of the others may come together.
PLAIN, DATE, SERVER, LENGTH, HOP = 0, 1, 2, 4, 8
_KINDS = {"content-length": LENGTH, "date": DATE, "server": SERVER} | dict.fromkeys(
    # RFC 2616 §13.5.1, which PEP 3333 forbids to applications
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers",
     "trailer", "transfer-encoding", "upgrade"),
    HOP,
)  # fmt: skip
_kinds: dict[str, int] = {}
_known_fields: dict[tuple[str, str], str] = {}


class Prefixes:
    """The beginnings of answers, each made once a second: status line, Server and Date."""

    def __init__(self) -> None:
        self.ready: dict[str, str] = {}  # by status
        self._date = ""
        self.until = 0.0  # monotonic seconds
        # Statuses whose answer has no body (RFC 9112 §6.3), as far as they were met; and none yet.
        self.bodiless = {""}

    def refresh(self, now: float, wall: float) -> None:
        self._date = formatdate(wall, usegmt=True)
        self.ready = {}
        self.until = now + 1.0 - wall % 1.0

    def get(self, status: str) -> str:
        """Raises TypeError or ValueError for a malformed status."""
        prefix = self.ready.get(status)
        if prefix is None:
            _check_status(status)
            prefix = self.without(status, PLAIN)
            if status[:3] in ("204", "304"):
                self.bodiless.add(status)
            if len(self.ready) < _MAX_KNOWN:
                self.ready[status] = prefix
        return prefix

    def without(self, status: str, given: int) -> str:
        """For a status that `get` knows: no field that the application gives itself."""
        server = "" if given & SERVER else "Server: sengu\r\n"
        date = "" if given & DATE else f"Date: {self._date}\r\n"
        return f"HTTP/1.1 {status}\r\n{server}{date}"


prefixes = Prefixes()


def _check_status(status: object) -> None:
    if not isinstance(status, str):
        raise TypeError(f"the status is a str, such as '200 OK', not {status!r}")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"the status is three digits and a reason, such as '200 OK': {status!r}")


def render_fields(headers: Headers) -> tuple[str, int | None, int]:
    """The fields as text, but Content-Length as a number; and which of DATE, SERVER are there.

    Raises TypeError or ValueError.
    """
    text = ""
    length: int | None = None
    given = PLAIN
    known = _known_fields.get
    for pair in headers:
        line = known(pair)
        if line is not None:
            text += line
            continue
        name, value = pair
        kind = _kinds.get(name)
        if kind is None:
            kind = _learn_kind(name)
        if kind == LENGTH:
            if length is not None or not str.isdigit(value):  # TypeError for what is no str
                raise ValueError(f"Content-Length is one number, not {value!r}")
            length = int(value)
            continue
        given |= kind
        text += _render_field(pair, kind)
    return text, length, given


def _learn_kind(name: object) -> int:
    """What the field `name` is to us. Raises TypeError or ValueError when it is none."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a header field is a str, not {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"malformed name of a header field: {name!r}")
    kind = _KINDS.get(name.lower(), PLAIN)
    if kind == HOP:
        raise ValueError(f"{name} is for the server to decide (PEP 3333, hop-by-hop)")
    if len(_kinds) < _MAX_KNOWN:
        _kinds[name] = kind
    return kind


def _render_field(pair: tuple[str, str], kind: int) -> str:
    """One field as a line; remembered, since most are the same in each answer."""
    name, value = pair
    if not isinstance(value, str):
        raise TypeError(f"the value of the header field {name} is a str, not {value!r}")
    if _CONTROL.search(value):
        raise ValueError(f"control characters in the header field {name}: {value!r}")
    line = f"{name}: {value}\r\n"
    if kind == PLAIN and len(line) <= _MAX_KNOWN_LENGTH:
        if len(_known_fields) >= _MAX_KNOWN:
            _known_fields.clear()
        _known_fields[pair] = line
    return line


def refusal_answer(status: int, reason: str) -> bytes:
    """A whole answer to a request that no application has seen."""
    body = f"{reason}\n".encode()
    prefix = prefixes.get(f"{status} {REASONS[status]}")
    return (
        f"{prefix}Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode("latin-1") + body
