"""What all measured web servers have in common: they serve one application on one port."""

import os
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

from bench import client, processes
from bench.program import Program
from bench.session import SOURCES
from tests.ports import free_port

APPLICATIONS = SOURCES / "web"

_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0  # how often to look whether it lives, as long as nobody answers


class Site(NamedTuple):
    """What to serve: a module of `bench/programs/web`, which has `wsgi`, `asgi` or both.

    `options` are the server's own, for its command line; `announce` is where workers of the
    application say that they are ready (`bench.announcements`); `prefix` is what runs the server,
    for example as another user (`bench.nobody`).
    """

    module: str = "hello"
    workers: int = 1
    options: tuple[str, ...] = ()
    announce: str = ""
    prefix: tuple[str, ...] = ()


class WebServer(Program):
    """A running web server. `keeps_alive`: several requests may come on one connection."""

    interface: ClassVar[str] = "wsgi"
    keeps_alive: ClassVar[bool] = True

    def __init__(self, directory: Path, site: Site) -> None:
        self.site = site
        self.port = free_port()
        super().__init__(directory)

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "PYTHONPATH": str(APPLICATIONS),
            "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
            "BENCH_ANNOUNCE": self.site.announce,
        }

    @property
    def prefix(self) -> tuple[str, ...]:
        return self.site.prefix

    @property
    def target(self) -> str:
        """The application as most servers in Python want it named."""
        return f"{self.site.module}:{self.interface}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_answer(self) -> float:
        """When (monotonic seconds) the first request was answered. Raises BenchError."""
        while True:
            try:
                client.first_answer(self.port, "/", time.monotonic() + _LOOK_SECONDS)
                return time.monotonic()
            except client.NoAnswerError:
                self.check_alive()
                if time.monotonic() > self.started_at + _START_SECONDS:
                    raise

    def worker_pid(self) -> int:
        """Of the worker that answers just now."""
        return int(client.ask(self.port, "/pid"))

    def cpu_seconds(self) -> float:
        """Of all processes and threads that live, which under plain load are all there were."""
        return processes.on_cpu_seconds(processes.tree(self.pid))
