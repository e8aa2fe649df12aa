"""uvicorn, with uvloop and httptools, without its access log."""

import sys

from bench.program import distribution_version
from bench.webservers.base import WebServer


class Uvicorn(WebServer):
    """One process, or a manager and its workers."""

    label = "uvicorn"
    interface = "asgi"

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("uvicorn")

    def prepare(self) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"),
            *("--port", str(self.port), "--workers", str(self.site.workers)),
            *(*self.site.options, self.target),
        ]
