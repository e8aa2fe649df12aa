"""What is served under chaos: each answer tells the question, and who answers.

Run by `sengu serve`, with this directory as its own: it imports nothing from beside it.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`POST /TOKEN?SIZE`: one line, then so many bytes of `x`. The line has the body's length."""
    token, size = environ["PATH_INFO"][1:], int(environ["QUERY_STRING"])
    received = len(environ["wsgi.input"].read())
    line = f"{token} {received} {os.getpid()} {os.environ['SENGU_GENERATION']}\n"
    body = line.encode() + b"x" * size
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
