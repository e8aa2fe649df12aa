"""What stands between the runtime and a user's worker: it is told to stop and to reload, in a
thread beside its `run`, and its beats are told. Imported by `kinds` and `sengu.testing`.
"""

import select
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sengu.model.work import WorkOptions
from sengu.posix import clock
from sengu.posix.notify import notify
from sengu.wire.scoreboard import HEARTBEAT
from sengu.work.api import Worker
from sengu.work.configuration import Configuration, log_level
from sengu.work.logs import set_level
from sengu.worker.board import Lane
from sengu.worker.runtime import Runtime, Stopping

BEATS_IN_TIMEOUT = 4
_MAX_REASON = 1000

Call = Callable[[Callable[[], object]], None]


class Tending(NamedTuple):
    """The configuration of the workers of a process, and what the command line has told them."""

    configuration: Configuration
    options: WorkOptions


class Beat:
    """What a worker says by `heartbeat`, on its line of the scoreboard."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._has_begun = False
        self._is_over = False

    def __call__(self) -> None:
        if self._has_begun:
            self._lane.progress(clock.monotonic())
        elif not self._is_over:
            self._begin()

    def _begin(self) -> None:
        self._has_begun = True
        self._lane.begin(clock.monotonic(), HEARTBEAT.encode())
        if self._is_over:  # by now, in another thread
            self._lane.end()

    def end(self) -> None:
        """It is stopping: from now on its grace period counts."""
        self._is_over = True
        self._lane.end()


class Worn:
    """What a worker says by `worn`: once, for its whole process, and on one line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._was_said = False

    def __call__(self, reason: str) -> None:
        if not self._was_said:
            self._was_said = True
            self._tell(" ".join(reason.split())[:_MAX_REASON] or "it says so")


class Attendant:
    """A thread beside the workers of a process: hears what the runtime hears, and tells them.

    `call` is how anything is called: as it is, or by an event loop. Until it is to stop the server
    is told that the process runs (WATCHDOG=1), and so does the loop, if there is one.
    """

    def __init__(
        self,
        runtime: Runtime,
        workers: Sequence[Worker],
        beats: Sequence[Beat],
        call: Call,
        tending: Tending,
    ) -> None:
        self._runtime = runtime
        self._workers = workers
        self._beats = beats
        self._call = call
        self._tending = tending
        self._has_stopped = False
        self._has_told = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="sengu-attendant", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def await_told(self) -> None:
        """Whoever was asked to stop has heard of it when this returns."""
        if self._runtime.stopping is not Stopping.NO:
            self._has_told.wait()

    def end(self) -> None:
        """The same, and nobody is told anything from now on."""
        self._is_over = True
        self._runtime.wake()
        self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._runtime.wake_fd, select.POLLIN)
        limit = self._runtime.application.request_timeout_seconds
        pause = None if limit is None else limit * 1000 / BEATS_IN_TIMEOUT
        while True:
            self._configure()
            if poll.poll(None if self._has_stopped else pause):
                self._runtime.listen()
            if self._runtime.stopping is Stopping.NO:
                self._call(_say_alive)
            elif not self._has_stopped:
                self._has_stopped = True
                for beat in self._beats:
                    beat.end()
                self._tell("stop")
                self._has_told.set()
            if self._is_over:
                return

    def _configure(self) -> None:
        """Look whether it has changed, as it may have before we could hear of it."""
        configuration, options = self._tending
        if self._has_stopped or not configuration.renew():
            return
        for worker in self._workers:
            worker.config = configuration.current
            set_level(worker.log, log_level(options, configuration.current))
        self._tell("reload")
        for call in self._runtime.on_reload:
            call()

    def _tell(self, method: str) -> None:
        for worker in self._workers:
            try:
                self._call(getattr(worker, method))
            except Exception:  # the user's; the others are to hear as well
                worker.log.exception("%s() failed", method)


def _say_alive() -> None:
    notify("WATCHDOG=1")
