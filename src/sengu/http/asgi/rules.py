"""The rules for requests that llhttp leaves open (RFC 9112), and the limits.

llhttp 9 refuses by itself: Content-Length twice, signed, in a list or beside Transfer-Encoding;
folded fields, spaces before a colon, bare CR and LF, NUL, malformed chunks. Pure; used by
`connection`.
"""

import functools

from httptools import HttpRequestParser

from sengu.http.head import NO_CODING, Refusal, check_host, check_target
from sengu.model.web import Limits

Headers = list[tuple[bytes, bytes]]

_VERSIONS = ("1.1", "1.0")


def check_request(
    parser: HttpRequestParser, target: bytes, headers: Headers, limits: Limits
) -> None:
    """Look at a head that has been parsed; names are in lower case. Raises Refusal."""
    version = parser.get_http_version()
    if version not in _VERSIONS:
        if version == "0.9":  # or none at all
            raise Refusal(400, "malformed request line")
        raise Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if target[:1] != b"/" or parser.should_upgrade():  # as CONNECT does, too
        check_target(parser.get_method().decode("latin-1"), target.decode("latin-1"))
    if len(headers) > limits.header_fields:
        raise Refusal(431, f"more than {limits.header_fields} header fields")
    fields = dict(headers)
    if len(fields) < len(headers):
        _check_repeated([name for name, _ in headers])
    if b"host" in fields:
        _check_host(fields[b"host"].strip(b" \t"))
    elif version != "1.0":
        raise Refusal(400, "no Host")
    if b"transfer-encoding" in fields:
        if version == "1.0":
            raise Refusal(400, "HTTP/1.0 knows no Transfer-Encoding")
        if fields[b"transfer-encoding"].strip().lower() != b"chunked":
            raise Refusal(501, NO_CODING)
    if b"expect" in fields and fields[b"expect"].lower() != b"100-continue" and version != "1.0":
        raise Refusal(417, "the only expectation known here is 100-continue")
    if limits.body_bytes is not None and b"content-length" in fields:
        check_length(int(fields[b"content-length"]), limits.body_bytes)


def _check_repeated(names: list[bytes]) -> None:
    """Of most fields there may be several."""
    if names.count(b"host") > 1:
        raise Refusal(400, "more than one Host")
    if names.count(b"transfer-encoding") > 1:
        raise Refusal(501, NO_CODING)


@functools.lru_cache(maxsize=256)
def _check_host(host: bytes) -> None:
    check_host(host.decode("latin-1"))


def check_sizes(target: bytes, headers: Headers, limits: Limits) -> None:
    """The limits of one line each. Not to be asked for a head that is smaller as a whole."""
    # The method and the version are part of the line that is limited.
    if len(target) + len("GET  HTTP/1.1") > limits.request_line_bytes:
        raise Refusal(414, f"the request line is longer than {limits.request_line_bytes} bytes")
    if any(len(name) + len(value) + 2 > limits.header_field_bytes for name, value in headers):
        raise Refusal(431, f"a header field is longer than {limits.header_field_bytes} bytes")


def check_length(length: int, body_bytes: int) -> None:
    """Of a body, as announced or as far as it has come."""
    if length > body_bytes:
        raise Refusal(413, f"the body is longer than {body_bytes} bytes")
