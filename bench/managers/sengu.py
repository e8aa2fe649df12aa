"""Ours: `sengu start`, driven through one kept connection to its control socket."""

import sys
from pathlib import Path
from typing import Any

from bench.control import Control
from bench.managers.base import Order
from bench.managers.deploying import Deploying
from bench.program import distribution_version


class Sengu(Deploying):
    """One instance."""

    label = "sengu"

    def __init__(self, directory: Path, order: Order) -> None:
        self.control = Control(directory / "control.sock")
        super().__init__(directory, order)

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("sengu")

    def prepare(self) -> list[str]:
        order = self.order
        port = () if order.port is None else ("--port", f"127.0.0.1:{order.port}")
        return [
            *(sys.executable, "-m", "sengu", "start", "--name", "bench"),
            *("--control", str(self.control.path)),
            *("--status-file", str(self.status_path), "--workers", str(order.workers)),
            *port,
            *(order.options or ("--ready", "notify")),
            *("--", *order.command),
        ]

    def request_deploy(self) -> None:
        """Returns when the deploy is concluded. Raises BenchError unless it succeeded."""
        self.control.deploy()

    def __exit__(self, *problem: Any) -> None:
        self.control.close()
        super().__exit__(*problem)
