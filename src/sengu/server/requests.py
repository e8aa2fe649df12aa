"""Looks for requests that make no progress, by the scoreboard: no worker has to answer for it.

It looks when a request that is in hand now could be overdue, and not before; an idle service is
looked at once a `--timeout`.
"""

from collections.abc import Callable

from sengu.model import events as ev
from sengu.planner.reduce import Fact
from sengu.posix.loop import Loop
from sengu.server.crew import Crew
from sengu.wire.scoreboard import HEARTBEAT, Line

# The worker's own hook `request_timeout` runs first.
_HOOK_SECONDS = 0.5
_LEAST_SECONDS = 0.1


class RequestWatch:
    """Posts WorkerOverdue for workers of `crew` that are stuck for longer than `limit_seconds`."""

    def __init__(
        self, loop: Loop, crew: Crew, limit_seconds: float, post: Callable[[Fact], None]
    ) -> None:
        self._loop = loop
        self._crew = crew
        self._limit_seconds = limit_seconds
        self._post = post
        self._look()

    def _look(self) -> None:
        now = self._loop.now()
        patience = self._limit_seconds + _HOOK_SECONDS
        next_look = now + patience
        for worker in list(self._crew.serving()):
            busy = [line for line in self._crew.lines(worker) if line.is_busy]
            stuck = min(busy, key=lambda line: line.progress_at, default=None)
            if stuck is None:
                continue
            if stuck.progress_at + patience <= now:
                self._post(ev.WorkerOverdue(worker, self._describe(stuck, now)))
            else:
                next_look = min(next_look, stuck.progress_at + patience)
        self._loop.call_at(max(next_look, now + _LEAST_SECONDS), self._look)

    def _describe(self, stuck: Line, now: float) -> str:
        if stuck.request == HEARTBEAT:
            return f"it has not called heartbeat() for more than {self._limit_seconds:g} s"
        return (
            f"{stuck.request} was in hand for {now - stuck.started_at:.1f} s, "
            f"without progress for more than {self._limit_seconds:g} s"
        )
