"""The runtime of one worker: who it is, whether it shall go on, and what it tells the others.

Engines poll `wake_fd` beside their own descriptors, and look at `stopping` when it is readable.
"""

import contextlib
import enum
import math
import os
import signal
import socket
from collections.abc import Callable, Sequence

from sengu.model.application import Application
from sengu.posix import clock, descriptors
from sengu.posix.notify import notify
from sengu.posix.swap_file import SwapFile
from sengu.worker.board import Board
from sengu.worker.identity import Identity

__all__ = ["Identity", "Runtime", "Stopping"]

_MARGIN_PART = 0.1
_MAX_MARGIN_SECONDS = 1.0
_CALM_BYTES = 512

# What a worker hears of its server. Blocked from before its birth until it can.
HEARD_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCONT, signal.SIGUSR2)


class Stopping(enum.IntEnum):
    """What was asked of the worker.

    RETIRE: another generation serves instead. Take nothing new; who is connected may send one more
    request, until `drain_until`. STOP: the service ends. Take what is in the queue already, and do
    not wait for those who say nothing.
    """

    NO = 0
    RETIRE = 1
    STOP = 2


# By signal; `listen` finds their numbers.
_ASKING: dict[int, Stopping] = {signal.SIGTERM: Stopping.RETIRE, signal.SIGQUIT: Stopping.STOP}


class Runtime:
    """Made by the fork server in the worker's process, before the engine runs.

    `listeners` are all listening sockets, in order, non-blocking; they are shared with other
    processes, and not to be shut down or changed. `drain_until` (monotonic seconds) is when the
    worker has to be done, once it is stopping: a little before it would be killed.
    """

    def __init__(
        self,
        identity: Identity,
        application: Application,
        listeners: Sequence[socket.socket],
        board: Board,
    ) -> None:
        self.identity = identity
        self.application = application
        self.listeners = listeners
        self.board = board
        # What it is, for an engine whose workers do not live from request to request.
        self.role = ""
        self.stopping = Stopping.NO
        self.drain_until = math.inf
        self.is_ready = False
        self.configuration: SwapFile | None = None
        # Of workers that have died with something in hand, if the application reads them.
        self.obituaries: SwapFile | None = None
        # Set by the ticker when nothing was to be seen for a while: who has begun a request while
        # it is set calls `rouse`. So an idle worker never wakes up, and a request pays one look.
        self.dozing = False
        self.rouse: Callable[[], None] = lambda: None
        # What is started before the worker is ready, and is to end with it, comes after that.
        self.enter_cgroup: Callable[[], None] = lambda: None
        self.on_ready: list[Callable[[], None]] = []
        self.on_reopen: list[Callable[[], None]] = []
        self.on_dump: list[Callable[[], None]] = []
        # Write down where we are, if that was asked for (`sengu.dump.ear`).
        self.dump: Callable[[], None] = lambda: None
        self.on_reload: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], None]] = []
        # A pipe, because the interpreter writes a byte into it for each signal.
        self.wake_fd, self._wake_end = descriptors.pipe()
        os.set_blocking(self._wake_end, False)

    def ready(self, *, tell: bool = True) -> None:
        """The worker can serve. A program that it runs may `tell` the server instead."""
        self.is_ready = True
        for call in self.on_ready:
            call()
        if tell:
            notify("READY=1")
        self.rouse()

    def worn(self, reason: str) -> None:
        """Ask to be replaced; go on serving until told to stop."""
        notify(f"X_SENGU_WORN={reason}")

    def stop(self, how: Stopping) -> None:
        """Begin to drain, or drain faster. May be called from any thread and at any moment."""
        if how > self.stopping:
            if self.stopping is Stopping.NO:
                grace = self.application.grace_seconds
                margin = min(_MAX_MARGIN_SECONDS, grace * _MARGIN_PART)
                self.drain_until = clock.monotonic() + grace - margin
            self.stopping = how
            for call in self._on_stop:
                call()
        self.wake()
        self.rouse()

    def on_stop(self, call: Callable[[], None]) -> None:
        """Have `call` called when `stopping` changes, from a signal handler and at any moment; at
        once if it has changed already."""
        self._on_stop.append(call)
        if self.stopping is not Stopping.NO:
            call()

    def wake(self) -> None:
        """Make `wake_fd` readable."""
        with contextlib.suppress(BlockingIOError):  # full, so it is readable
            os.write(self._wake_end, b"\0")

    def calm(self) -> None:
        """Take in that `wake_fd` was readable."""
        with contextlib.suppress(BlockingIOError):  # that was all
            while True:
                os.read(self.wake_fd, _CALM_BYTES)

    def listen(self) -> None:
        """The same in a thread beside the main one, which then need not be awake to be stopped.

        A handler runs in the main thread only, when that comes back to Python: a signal that comes
        just before it goes to sleep is heard when it wakes up. The numbers of signals are here too.
        """
        with contextlib.suppress(BlockingIOError):  # that was all
            while True:
                for number in os.read(self.wake_fd, _CALM_BYTES):
                    if number in _ASKING:
                        self.stop(_ASKING[number])
                    elif number == signal.SIGCONT:
                        self.dump()

    def handle_signals(self) -> None:
        """TERM retires, QUIT stops, USR1 reopens logs. USR2 is that `configuration` has another
        content: whoever looks at that is woken by `wake_fd`. Only the main thread may call it.

        A handler of Python's runs between two instructions of the main thread. A signal that comes
        just before a poll would wait for its end, if it did not make `wake_fd` readable at once.
        """
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self.stop(Stopping.RETIRE))
        signal.signal(signal.SIGQUIT, lambda *_: self.stop(Stopping.STOP))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: self._reopen())
        signal.signal(signal.SIGUSR2, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD_SIGNALS)
        os.register_at_fork(after_in_child=_default_signals)

    def _reopen(self) -> None:
        for call in self.on_reopen:
            call()


def _default_signals() -> None:
    """In a child that the application forks: what we hear is not meant for it, and TERM ends it."""
    signal.set_wakeup_fd(-1)
    for number in HEARD_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
