"""The control socket of a running sengu, as anybody may speak to it: HTTP and JSON."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from bench.session import BenchError

_ANSWER_SECONDS = 60.0


class Control:
    """One connection, made when it is first needed and kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _Connection(path)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return dict(json.loads(self._ask(method, path, body)))

    def server_pid(self) -> int:
        """Of the server, which the main process, the supervisor, has started."""
        return int(self.call("GET", "/v1/status")["server_pid"])

    def deploy(self) -> None:
        """Returns when the deploy is concluded. Raises BenchError unless it succeeded."""
        answer = self.call("POST", "/v1/reload", {"wait": True})
        if answer.get("outcome") != "succeeded":
            raise BenchError(f"the deploy did not succeed: {answer}")

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """What has happened after the event of this number. `time` is by the wall clock."""
        text = self._ask("GET", f"/v1/events?since={since}&follow=false").decode()
        lines = (line.partition(": ") for line in text.splitlines())
        return [json.loads(value) for name, _, value in lines if name == "data"]

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data)
        return self._connection.getresponse().read()


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX stream socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
