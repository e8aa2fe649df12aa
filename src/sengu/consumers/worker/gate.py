"""The gate that jobs pass before they begin: it counts who is within, and closes for a suspect.

Shared by all runners of a process; entered in their threads, opened and closed in that of the
connection. Imported by `runners` and `ward`.
"""

import threading
from collections.abc import Callable

from sengu.consumers.model.judge import Origin
from sengu.consumers.worker.job import Job
from sengu.posix import clock


class Gate:
    """Closed at first. `on_open` are called when it opens, in the thread that opens it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_closed = True
        self._busy = 0
        self.on_open: list[Callable[[], None]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no job runs, but for those that are stuck."""
        return not self._busy

    def close(self) -> None:
        """Let in no more, but for suspects."""
        if self._is_closed:
            return
        with self._changed:
            self._is_closed = True

    def open(self) -> None:
        if not self._is_closed:
            return
        with self._changed:
            self._is_closed = False
            self._changed.notify_all()
        for call in self.on_open:
            call()

    def enter(self, job: Job) -> bool:
        """Wait until it may begin; False if it was taken back meanwhile."""
        with self._changed:
            while not self._may_begin(job):
                self._changed.wait()
            return self._let_in(job)

    def try_to_enter(self, job: Job) -> bool | None:
        """The same without waiting; None if it may not begin now."""
        with self._changed:
            return self._let_in(job) if self._may_begin(job) else None

    def leave(self, job: Job) -> bool:
        """It has ended; or nobody waits for that any more. False if it has left before."""
        with self._changed:
            has_left, job.has_ended = job.has_ended, True
            if not has_left:
                self._busy -= 1
            return not has_left

    def withdraw(self, job: Job) -> bool:
        """Take it back, unless it has begun."""
        with self._changed:
            has_begun = job.started_at > 0.0
            if not has_begun:
                job.is_over = True
                self._changed.notify_all()
            return not has_begun

    def _may_begin(self, job: Job) -> bool:
        return job.is_over or not self._is_closed or job.delivered.origin is Origin.SUSPECTS

    def _let_in(self, job: Job) -> bool:
        if job.is_over:
            return False
        job.thread_id = threading.get_ident()
        job.started_at = clock.monotonic()
        self._busy += 1
        return True
