"""Celery, with its pool of threads or of forked processes."""

import os
import signal
import sys

from bench import processes
from bench.consuming.base import Consuming


class Celery(Consuming):
    """One worker: its first process has the connection, also if others run the jobs."""

    label = "Celery"
    module = "bench.programs.consuming.jobs_celery"
    distribution = "celery"

    def prepare(self) -> list[str]:
        setting = self.setting
        pool = "threads" if setting.threads > 1 else "prefork"
        return [
            *(sys.executable, "-m", "celery", "--app", self.module, "worker"),
            *("--pool", pool, "--concurrency", str(setting.processes * setting.threads)),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            *("--loglevel", "warning"),
        ]

    def _end(self) -> None:
        """By force: told to end with TERM, its prefork pool has been seen to hang."""
        for pid in processes.tree(self.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
