"""uWSGI of Debian, with the Python plugin. `http11-socket` is its way to keep connections alive."""

from bench.program import command_version
from bench.webservers.base import WebServer


class Uwsgi(WebServer):
    """A master and its workers."""

    label = "uWSGI"

    @classmethod
    def version(cls) -> str | None:
        if command_version("uwsgi", "--plugin", "python3", "--version") is None:
            return None
        return command_version("uwsgi", "--version")

    def prepare(self) -> list[str]:
        return [
            *("uwsgi", "--plugin", "python3", "--master", "--die-on-term", "--disable-logging"),
            *("--http11-socket", self.address, "--processes", str(self.site.workers)),
            *("--module", self.target, *self.site.options),
        ]
