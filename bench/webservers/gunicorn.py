"""gunicorn, with its sync and its threaded workers."""

import os
import signal
import sys

from bench.program import distribution_version
from bench.webservers.base import WebServer

# Not at the top: the application is imported later, by the master (--preload) or by the worker.
_ANNOUNCING = """\
def post_worker_init(worker):
    from {module} import worker_ready
    worker_ready(worker)
"""


class Gunicorn(WebServer):
    """A master and its workers, each with one request at a time."""

    label = "gunicorn sync"
    keeps_alive = False

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("gunicorn")

    def prepare(self) -> list[str]:
        if self.site.announce:
            path = self.directory / "gunicorn.conf.py"  # which it looks for where it is started
            path.write_text(_ANNOUNCING.format(module=self.site.module))
        return [
            *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
            *("--workers", str(self.site.workers), "--bind", self.address),
            *(*self.site.options, self.target),
        ]

    def request_deploy(self) -> None:
        os.kill(self.pid, signal.SIGHUP)


class GunicornThreads(Gunicorn):
    """Four threads in each worker: it keeps connections alive."""

    label = "gunicorn gthread"
    keeps_alive = True

    def prepare(self) -> list[str]:
        return [*super().prepare(), "--worker-class", "gthread", "--threads", "4"]


class GunicornPreloaded(Gunicorn):
    """The application is imported once, before the workers are forked."""

    label = "gunicorn --preload"

    def prepare(self) -> list[str]:
        return [*super().prepare(), "--preload"]
