"""Much to send and to take: the application of the measurement `http-transfer`.

`POST /` takes the body and answers its length; `GET /stream?N` sends N bytes block by block, and
`GET /file?PATH` a file, by the server's `wsgi.file_wrapper` if it has one.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_BLOCK_BYTES = 65536
_BLOCK = bytes(_BLOCK_BYTES)


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        count = int(environ["QUERY_STRING"])
        _begin(start_response, count)
        return _blocks(count)
    if path == "/file":
        file = open(environ["QUERY_STRING"], "rb")  # noqa: SIM115 - the server closes it
        _begin(start_response, os.fstat(file.fileno()).st_size)
        wrap = environ.get("wsgi.file_wrapper")
        return wrap(file, _BLOCK_BYTES) if wrap else iter(lambda: file.read(_BLOCK_BYTES), b"")
    number = os.getpid() if path == "/pid" else _taken(environ)
    body = b"%d\n" % number
    _begin(start_response, len(body))
    return [body]


def _begin(start_response: Callable[..., object], length: int) -> None:
    headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))]
    start_response("200 OK", headers)


def _taken(environ: dict[str, Any]) -> int:
    """The length of the request's body, none of which is kept. gunicorn's ends by b"" alone."""
    read = environ["wsgi.input"].read
    left = total = int(environ.get("CONTENT_LENGTH") or 0)
    while left and (block := read(min(left, _BLOCK_BYTES))):
        left -= len(block)
    return total - left


def _blocks(count: int) -> Iterator[bytes]:
    for _ in range(count // _BLOCK_BYTES):
        yield _BLOCK
    if count % _BLOCK_BYTES:
        yield _BLOCK[: count % _BLOCK_BYTES]
