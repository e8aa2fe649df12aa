"""What all servers in Python serve: hello, and at /pid who answers.

With BENCH_ANNOUNCE, a FIFO, it is told there when this module has been imported, and by each worker
when it is ready.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = b"%d\n" % os.getpid() if environ["PATH_INFO"] == "/pid" else b"hello\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


async def asgi(
    scope: dict[str, Any],
    _receive: Callable[[], Awaitable[object]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError  # no lifespan, no websockets
    body = b"%d\n" % os.getpid() if scope["path"] == "/pid" else b"hello\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def worker_ready(_worker: object = None) -> None:
    """A hook of sengu's, and of gunicorn's and uWSGI's by a line of configuration."""
    path = os.environ.get("BENCH_ANNOUNCE")
    if path:
        line = b"%d 0 %d\n" % (os.getpid(), time.monotonic_ns())
        with open(path, "wb", buffering=0) as fifo:
            fifo.write(line)


try:
    import uwsgi
except ImportError:  # uWSGI has it built in; here is another server
    pass
else:
    uwsgi.post_fork_hook = worker_ready

worker_ready()  # the first to speak: the application has been imported
