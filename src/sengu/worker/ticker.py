"""The ticker: a thread of the worker that looks at it from beside, once a second while it works.

It keeps the process title current, calls `request_timeout`, weighs the process, has it enter its
cgroup, and sees when the server is gone. It looks at the scoreboard only, so that no request pays
for it; and it sleeps for as long as nothing is to be seen.
"""

import contextlib
import faulthandler
import os
import select
import sys
import threading

from sengu.posix import clock
from sengu.posix.procfs import resident_bytes
from sengu.posix.title import Title
from sengu.wire.scoreboard import Line
from sengu.worker.hooks import Hooks
from sengu.worker.runtime import Runtime, Stopping

_TICK_SECONDS = 1.0
_HEAVY_SAMPLES = 3  # one sample may be a request that is just being served
_ORPHANED = 1


class Ticker:
    """Runs beside the worker's own thread until the process ends.

    `lifeline_fd` reports EOF when nobody is left who could tell the worker to stop. `cgroup_fd` is
    the `cgroup.procs` of the worker's own cgroup, if it has one.
    """

    def __init__(
        self, runtime: Runtime, hooks: Hooks, lifeline_fd: int, cgroup_fd: int | None = None
    ) -> None:
        self._runtime = runtime
        self._hooks = hooks
        self._cgroup_fd = cgroup_fd
        self._rouse_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._rouse_fd, select.POLLIN)
        self._poll.register(lifeline_fd, select.POLLIN)
        self._title = Title()
        identity = runtime.identity
        self._name = f"sengu: {identity.service} worker {identity.slot} gen {identity.generation}"
        self._seen_requests = 0
        self._told_of = 0.0  # when the request began whose timeout the hook was told
        self._heavy = 0
        self._is_orphan = False
        self._has_dumped = False

    def start(self) -> None:
        self._runtime.rouse = self._rouse
        self._runtime.enter_cgroup = self._enter_cgroup
        self._show("starting")
        threading.Thread(target=self._run, name="sengu-ticker", daemon=True).start()

    def _rouse(self) -> None:
        self._runtime.dozing = False
        os.eventfd_write(self._rouse_fd, 1)

    def _run(self) -> None:
        while True:
            if self._runtime.is_ready:
                self._enter_cgroup()
            now = clock.monotonic()
            line = self._runtime.board.oldest()
            self._look(line, now)
            for fd, _events in self._poll.poll(self._timeout(line, now)):
                if fd == self._rouse_fd:
                    os.eventfd_read(fd)
                else:
                    self._poll.unregister(fd)
                    self._orphaned()

    def _enter_cgroup(self) -> None:
        """All threads move. The kernel takes its time for it, so nobody who waits for us does."""
        procs, self._cgroup_fd = self._cgroup_fd, None
        if procs is None:
            return
        with contextlib.suppress(OSError):  # ENODEV: it was removed, as we are about to be killed
            os.write(procs, b"0")
        os.close(procs)

    def _timeout(self, line: Line | None, now: float) -> float | None:
        """Milliseconds until the next look; None when there is nothing to look at."""
        runtime = self._runtime
        if runtime.stopping is Stopping.NO and (
            runtime.role or (line is None and self._is_quiet())
        ):
            return _TICK_SECONDS * 1000 if self._is_weighing() else None
        until = now + _TICK_SECONDS
        if now < runtime.drain_until:
            until = min(until, runtime.drain_until)
        limit = runtime.application.request_timeout_seconds
        if line is not None and limit is not None and line.started_at != self._told_of:
            until = min(until, line.progress_at + limit)
        return max(0.0, until - now) * 1000

    def _is_weighing(self) -> bool:
        """Whether its weight may change though no request begins."""
        if self._runtime.role:
            return self._runtime.application.wear.max_rss_bytes is not None
        return 0 < self._heavy < _HEAVY_SAMPLES

    def _is_quiet(self) -> bool:
        """Whether no request has begun since the last look; if so, ask to be roused by the next."""
        requests = self._count()
        self._runtime.dozing = requests == self._seen_requests
        # One may have begun before it could see that we doze.
        if self._count() != requests:
            self._runtime.dozing = False
        self._seen_requests = requests
        return self._runtime.dozing

    def _count(self) -> int:
        return sum(lane.requests for lane in self._runtime.board.lanes)

    def _look(self, line: Line | None, now: float) -> None:
        self._show(self._describe(line, now))
        if line is not None:
            self._check_request(line, now)
        self._weigh()
        if now >= self._runtime.drain_until:
            self._late()

    def _describe(self, line: Line | None, now: float) -> str:
        runtime = self._runtime
        if line is not None and not runtime.role:
            return f"{line.request} {now - line.started_at:.1f}s"
        if runtime.stopping is not Stopping.NO:
            return f"{runtime.role} stopping" if runtime.role else "draining"
        return (runtime.role or "idle") if runtime.is_ready else "starting"

    def _show(self, what: str) -> None:
        self._title.set(f"{self._name}: {what}")

    def _check_request(self, line: Line, now: float) -> None:
        limit = self._runtime.application.request_timeout_seconds
        if limit is None or line.started_at == self._told_of or now < line.progress_at + limit:
            return
        self._told_of = line.started_at
        self._hooks.request_timeout(self._runtime.identity, line.request)

    def _weigh(self) -> None:
        most = self._runtime.application.wear.max_rss_bytes
        if most is None or self._heavy == _HEAVY_SAMPLES:
            return
        resident = resident_bytes()
        self._heavy = self._heavy + 1 if resident > most else 0
        if self._heavy == _HEAVY_SAMPLES:
            self._runtime.worn(f"{resident >> 20} MiB resident, more than {most >> 20}")

    def _orphaned(self) -> None:
        """The server is gone for good: finish what is in hand, then end."""
        self._is_orphan = True
        self._runtime.stop(Stopping.STOP)

    def _late(self) -> None:
        """The time to drain is over, and the worker's own thread has not come back."""
        if not self._has_dumped:
            self._has_dumped = True
            with contextlib.suppress(OSError):  # who read that is gone as well
                print("sengu: not drained in time; what the threads are at:", file=sys.stderr)
            faulthandler.dump_traceback(all_threads=True)
        if self._is_orphan:  # nobody else would end us
            os._exit(_ORPHANED)
