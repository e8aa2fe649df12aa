"""bjoern and fastwsgi: servers in C without a command line, started by a script of ours."""

import sys
from typing import ClassVar

from bench.program import distribution_version
from bench.session import SOURCES
from bench.webservers.base import WebServer


class _InC(WebServer):
    """One process, or several that are forked before they serve."""

    distribution: ClassVar[str]

    @classmethod
    def version(cls) -> str | None:
        return distribution_version(cls.distribution)

    def prepare(self) -> list[str]:
        script = SOURCES / "serve_in_c.py"
        numbers = (str(self.port), str(self.site.workers))
        return [sys.executable, str(script), self.distribution, self.site.module, *numbers]


class Bjoern(_InC):
    label = "bjoern"
    distribution = "bjoern"


class FastWsgi(_InC):
    label = "fastwsgi"
    distribution = "fastwsgi"
