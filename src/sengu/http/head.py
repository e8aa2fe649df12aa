"""The head of a request: parsed by gunicorn-h1c, and why one is refused.

The parser checks the grammar, the limits and the framing fields. Here is what it leaves to its
caller (RFC 9112): one space between the parts of the request line, origin form, a well-formed
Host; and which status an error gets. Pure; used by `environ` and `intake`.
"""

import re
from collections.abc import Callable
from typing import Protocol

import gunicorn_h1c
import msgspec
from gunicorn_h1c import LimitRequestHeaders, LimitRequestLine, _parser_fast

from sengu.model.web import Limits


class HttpRequest(Protocol):
    """What the parser gives. `consumed` is the head's length; `content_length` is -1 for none."""

    headers: tuple[tuple[bytes, bytes], ...]
    consumed: int
    content_length: int
    has_chunked: bool


# data, how much of it was seen before, and the limits: line_bytes, fields, field_bytes
parse_request: Callable[[bytes, int, int, int, int], HttpRequest] = _parser_fast.parse_request
# The parser's two modules have exceptions of their own, by the same names.
IncompleteError: type[Exception] = _parser_fast.IncompleteError
MALFORMED: tuple[type[Exception], ...] = (_parser_fast.ParseError, gunicorn_h1c.ParseError)

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}
NO_CODING = "the only transfer coding known here is chunked"

_PARSER_FIELDS = 256  # above it the parser says no more than "invalid"
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
# Apart from the request line. Fields times their size would be 800 KB a connection.
_MIN_FIELDS_BYTES = 1 << 16


class Refusal(Exception):
    """A request that is answered with `status`, and its connection closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class HeadLimits(msgspec.Struct, frozen=True):
    """What the parser is told, and how much of a head is kept until the rest comes."""

    line_bytes: int
    fields: int
    field_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, limits: Limits) -> "HeadLimits":
        return cls(
            limits.request_line_bytes,
            limits.header_fields,
            limits.header_field_bytes,
            limits.request_line_bytes + max(_MIN_FIELDS_BYTES, limits.header_field_bytes),
        )


def split_line(data: bytes) -> list[str]:
    """Method, target and protocol of a head that the parser took but whose first line is not
    three parts: an empty line may precede it (RFC 9112 §2.2), two spaces in a row may not be."""
    line = data.removeprefix(b"\r\n").partition(b"\r\n")[0]
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3:
        raise Refusal(400, "malformed request line")
    return parts


def check_target(method: str, target: str) -> None:
    """Refuse what is no origin form (RFC 9112 §3.2), except for `OPTIONS *`."""
    if not target.startswith("/") and (target != "*" or method != "OPTIONS"):
        raise Refusal(400, "the request target is not a path")
    if method == "CONNECT":
        raise Refusal(400, "this is no proxy")


def check_host(host: str) -> None:
    """Refuse what can not be a host and a port (RFC 9110 §7.2)."""
    if not _HOST.fullmatch(host):
        raise Refusal(400, "malformed Host")


def check_partial(data: bytes, limits: HeadLimits) -> None:
    """Refuse a head whose end has not come, when it is too long already."""
    line_end = data.find(b"\r\n", 0, limits.line_bytes + 2)
    if line_end < 0:
        if len(data) > limits.line_bytes + 1:
            raise Refusal(414, f"the request line is longer than {limits.line_bytes} bytes")
        return
    if (
        len(data) > limits.total_bytes
        or len(data) - data.rindex(b"\r\n") - 2 > limits.field_bytes
        or data.count(b"\n", line_end + 2) > limits.fields
    ):
        raise Refusal(431, "the header is too long")


def refusal_of(data: bytes, error: Exception, limits: HeadLimits) -> Refusal:
    """Which answer the parser's `error` about `data` gets."""
    if isinstance(error, LimitRequestLine):
        return Refusal(414, f"the request line is longer than {limits.line_bytes} bytes")
    if isinstance(error, LimitRequestHeaders):
        return Refusal(431, "the header is too long")
    head = data.removeprefix(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"
    line, _, fields = head.partition(b"\r\n")
    # The parser has had enough before the line has ended.
    parts = line.removesuffix(b"\r").split(b" ")
    if len(parts) == 3 and _VERSION.fullmatch(parts[2]) and parts[2][5:] not in (b"1.0", b"1.1"):
        return Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if fields.count(b"\r\n") > _PARSER_FIELDS:
        return Refusal(431, "the header is too long")
    if "Unsupported Transfer-Encoding" in str(error) and not _CONTENT_LENGTH.search(head):
        return Refusal(501, NO_CODING)
    return Refusal(400, str(error).partition(" (")[0])
