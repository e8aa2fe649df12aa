"""The little HTTP that a readiness probe speaks: one request, and the status of its answer.

Pure text, no socket. A whole parser would stay in the server's memory for one line. Imported by
`probe` and `probe_connection`.
"""

import re

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")  # RFC 9112 §4
_STATUS_LINE_BYTES = 13  # what the expression above matches
_PROTOCOL = b"HTTP/1."


def http_request(path: str, host: str = "localhost") -> bytes:
    """A GET of `path` after which the server closes (RFC 9112 §9.6). Raises ValueError."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError(f"{path!r} is not a path for HTTP; begin with / and percent-encode it")
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sengu\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def final_status(head: bytes) -> int | None:
    """The status code of an HTTP/1.x answer that begins with `head`, None if more is needed.

    Interim answers (1xx, RFC 9110 §15.2) are skipped. Raises ValueError if it is not HTTP/1.x.
    """
    while head:
        match = _STATUS_LINE.match(head)
        if match is None:
            if len(head) < _STATUS_LINE_BYTES and _PROTOCOL.startswith(head[: len(_PROTOCOL)]):
                return None
            raise ValueError("the answer is not HTTP/1.x")
        status = int(match[1])
        if status >= 200:
            return status
        head = head.partition(b"\r\n\r\n")[2]
    return None
