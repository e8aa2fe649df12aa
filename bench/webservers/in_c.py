"""bjoern and fastwsgi: servers in C without a command line, started by a script of ours."""

import sys
from typing import ClassVar

from bench.managers.base import Order
from bench.program import distribution_version
from bench.session import SOURCES
from bench.webservers.base import APPLICATIONS, WebServer

_SCRIPT = str(SOURCES / "serve_in_c.py")


class _InC(WebServer):
    """One process, or several that are forked before they serve."""

    distribution: ClassVar[str]

    @classmethod
    def version(cls) -> str | None:
        return distribution_version(cls.distribution)

    def prepare(self) -> list[str]:
        numbers = (str(self.port), str(self.site.workers))
        return [sys.executable, _SCRIPT, self.distribution, self.site.module, *numbers]


class Bjoern(_InC):
    label = "bjoern"
    distribution = "bjoern"


class FastWsgi(_InC):
    label = "fastwsgi"
    distribution = "fastwsgi"


def bjoern_order(port: int) -> Order:
    """A process of bjoern with the same hello, for a manager."""
    path = f"PYTHONPATH={APPLICATIONS}"
    return Order(("/usr/bin/env", path, sys.executable, _SCRIPT, "bjoern", "hello", str(port), "1"))
