"""Unicorn of Debian: a Rack application that answers the same."""

from bench.program import command_version
from bench.webservers.base import APPLICATIONS, WebServer

_CONFIGURATION = """\
worker_processes {workers}
preload_app true
listen '{address}'
"""


class Unicorn(WebServer):
    """A master that has loaded the application, and its workers."""

    label = "Unicorn"
    interface = "rack"
    keeps_alive = False

    @classmethod
    def version(cls) -> str | None:
        return command_version("unicorn", "--version")

    def prepare(self) -> list[str]:
        path = self.directory / "unicorn.rb"
        path.write_text(_CONFIGURATION.format(workers=self.site.workers, address=self.address))
        application = APPLICATIONS / f"{self.site.module}.ru"
        return ["unicorn", "-E", "none", "-c", str(path), *self.site.options, str(application)]
