"""Ours: `sengu start`, driven through one kept connection to its control socket."""

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import Any

from bench.managers.base import Order
from bench.managers.deploying import Deploying
from bench.session import BenchError

_ANSWER_SECONDS = 60.0


class Sengu(Deploying):
    """One instance."""

    label = "sengu"
    hands_over_listen_fds = True

    def __init__(self, directory: Path, order: Order) -> None:
        self._control = _Connection(directory / "control.sock")
        super().__init__(directory, order)

    @classmethod
    def version(cls) -> str | None:
        from importlib.metadata import version

        return version("sengu")

    def prepare(self) -> list[str]:
        order = self.order
        port = () if order.port is None else ("--port", f"127.0.0.1:{order.port}")
        return [
            *(sys.executable, "-m", "sengu", "start", "--name", "bench"),
            *("--control", str(self.directory / "control.sock")),
            *("--status-file", str(self.status_path), "--workers", str(order.workers)),
            *port,
            *(order.options or ("--ready", "notify")),
            *("--", *order.command),
        ]

    def request_deploy(self) -> None:
        """Returns when the deploy is concluded. Raises BenchError unless it succeeded."""
        answer = self.call("POST", "/v1/reload", {"wait": True})
        if answer.get("outcome") != "succeeded":
            raise BenchError(f"the deploy did not succeed: {answer}")

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        self._control.request(method, path, data)
        return dict(json.loads(self._control.getresponse().read()))

    def __exit__(self, *problem: Any) -> None:
        self._control.close()
        super().__exit__(*problem)


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX stream socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
