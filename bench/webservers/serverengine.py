"""ServerEngine of Debian, a framework in Ruby: a program of a few lines that answers the same."""

from bench import processes
from bench.program import command_version
from bench.webservers.base import APPLICATIONS, WebServer

_VERSION = "begin; require 'serverengine'; puts ServerEngine::VERSION; rescue LoadError; end"


class ServerEngine(WebServer):
    """A supervisor, its server, and workers; only `hello` is there."""

    label = "ServerEngine"
    interface = "ruby"
    keeps_alive = False

    @classmethod
    def version(cls) -> str | None:
        return command_version("ruby", "-e", _VERSION)

    def prepare(self) -> list[str]:
        script = APPLICATIONS / "serverengine.rb"
        return ["ruby", str(script), str(self.port), str(self.site.workers)]

    def server_pid(self) -> int:
        """Of the child of the supervisor, which has the workers."""
        return processes.children(self.pid)[0]
