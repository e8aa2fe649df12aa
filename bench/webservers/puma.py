"""Puma of Debian: a Rack application that answers the same, in up to five threads a worker."""

from bench.program import command_version
from bench.webservers.base import APPLICATIONS, WebServer


class Puma(WebServer):
    """One process, or a cluster."""

    label = "Puma"
    interface = "rack"

    @classmethod
    def version(cls) -> str | None:
        return command_version("puma", "--version")

    def prepare(self) -> list[str]:
        workers = self.site.workers if self.site.workers > 1 else 0  # 0: no master beside
        return [
            *("puma", "--quiet", "--environment", "none", "--workers", str(workers)),
            *("--bind", f"tcp://{self.address}", *self.site.options),
            str(APPLICATIONS / f"{self.site.module}.ru"),
        ]
