"""granian: HTTP in Rust, the application in Python."""

import sys

from bench.program import distribution_version
from bench.webservers.base import WebServer


class Granian(WebServer):
    """With its WSGI interface."""

    label = "granian WSGI"

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("granian")

    def prepare(self) -> list[str]:
        return [
            *(sys.executable, "-m", "granian", "--no-log", "--interface", self.interface),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", str(self.site.workers), *self.site.options, self.target),
        ]


class GranianAsgi(Granian):
    """With its ASGI interface."""

    label = "granian ASGI"
    interface = "asgi"
