"""The answer to those who ask whether this service takes requests: balancers, probes.

It is given by sengu itself, at a path that the application then never sees, and it is neither
counted nor logged. A worker that retires answers that all is well, since another generation serves.
Used by `site` and `asgi.front`.
"""

from collections.abc import Callable
from typing import Any

from sengu.http.asgi.types import Send
from sengu.worker.runtime import Runtime, Stopping

_WELL = ("200 OK", b"ok\n")
_ENDING = ("503 Service Unavailable", b"stopping\n")
_FIELDS = (("Content-Type", "text/plain"), ("Cache-Control", "no-store"))


class Health:
    """What a worker tells at `path`, below `root_path` or not."""

    def __init__(self, path: str, root_path: str, runtime: Runtime) -> None:
        self.path = path
        self.paths = frozenset((path, root_path + path))
        self._runtime = runtime

    def _look(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, fields, body."""
        runtime = self._runtime
        is_ending = runtime.board.is_service_ending or runtime.stopping is Stopping.STOP
        status, body = _ENDING if is_ending else _WELL
        return status, [*_FIELDS, ("Content-Length", str(len(body)))], body

    def wsgi(self, _environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """As an application of PEP 3333."""
        status, fields, body = self._look()
        start_response(status, fields)
        return [body]

    async def asgi(self, send: Send) -> None:
        """As an application of ASGI that reads nothing."""
        status, fields, body = self._look()
        headers = [(name.lower().encode(), value.encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": headers})
        await send({"type": "http.response.body", "body": body})
