"""Ours: `sengu serve`, with all limits and timeouts as they are by default."""

import sys
from pathlib import Path
from typing import Any

from bench.control import Control
from bench.program import distribution_version
from bench.webservers.base import Site, WebServer


class Sengu(WebServer):
    """One instance."""

    label = "sengu"

    def __init__(self, directory: Path, site: Site) -> None:
        self.control = Control(directory / "control.sock")
        super().__init__(directory, site)

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("sengu")

    def prepare(self) -> list[str]:
        return [
            *(sys.executable, "-m", "sengu", "serve", self.target, "--name", "bench"),
            *("--control", str(self.control.path), "--listen", self.address),
            *("--workers", str(self.site.workers), *self.site.options),
        ]

    def request_deploy(self) -> None:
        """Returns when the deploy is concluded. Raises BenchError unless it succeeded."""
        self.control.deploy()

    def __exit__(self, *problem: Any) -> None:
        self.control.close()
        super().__exit__(*problem)


class SenguAsgi(Sengu):
    """With the same loop, and uvicorn's protocols."""

    label = "sengu ASGI"
    interface = "asgi"
