"""Time that goes by when the test says so, for workers that wait in threads. Imported by `runner`.

A thread is at rest while it waits for `stopping`; time goes on only when all are.
"""

import math
import sys
import threading
import traceback
from collections.abc import Callable

from sengu.work.api import StopEvent


class Clock:
    """Seconds since the worker began. `patience_seconds` are real ones."""

    def __init__(self, patience_seconds: float) -> None:
        self.now = 0.0
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._due: dict[threading.Thread, float] = {}  # who waits, and until when
        self._busy: set[threading.Thread] = set()

    def begin(self, thread: threading.Thread) -> None:
        """The thread is at work, from now on until it waits."""
        self._busy.add(thread)

    def wait(self, seconds: float | None, is_over: Callable[[], bool]) -> None:
        """Called by the worker: until the test has advanced so far, or it `is_over`."""
        if seconds is not None and seconds <= 0:
            return
        me = threading.current_thread()
        with self._changed:
            self._due[me] = math.inf if seconds is None else self.now + seconds
            self._busy.discard(me)
            self._changed.notify_all()
            self._changed.wait_for(lambda: is_over() or me not in self._due)
            self._due.pop(me, None)
            self._busy.add(me)

    def interrupt(self) -> None:
        """What they wait for may be over."""
        with self._changed:
            self._busy.update(self._due)
            self._changed.notify_all()

    def advance(self, seconds: float) -> None:
        """Let time go by, and wait until all is done that is due. Raises TimeoutError."""
        with self._changed:
            target = self.now + seconds
            while True:
                self._await_rest()
                due = min(self._due.values(), default=math.inf)
                if due > target:
                    break
                self.now = due
                woken = [thread for thread, moment in self._due.items() if moment <= due]
                for thread in woken:
                    del self._due[thread]
                self._busy.update(woken)
                self._changed.notify_all()
            self.now = target

    def end(self) -> None:
        """Called by a thread that will not wait again."""
        with self._changed:
            self._busy.discard(threading.current_thread())
            self._changed.notify_all()

    def _await_rest(self) -> None:
        if not self._changed.wait_for(self._is_at_rest, self._patience_seconds):
            raise TimeoutError(
                f"the worker has not come back to self.stopping.wait() for "
                f"{self._patience_seconds:g} s:\n{describe(self._busy)}"
            )

    def _is_at_rest(self) -> bool:
        return not any(thread.is_alive() for thread in self._busy)


class FakeStopEvent(StopEvent):
    """Waits by that clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def set(self) -> None:
        super().set()
        self._clock.interrupt()

    def wait(self, seconds: float | None = None) -> bool:
        if not self._is_set:
            self._clock.wait(seconds, self.is_set)
        return self._is_set


def describe(threads: set[threading.Thread]) -> str:
    """Where they are."""
    frames = sys._current_frames()
    stacks = [frames[thread.ident] for thread in threads if thread.ident in frames]
    return "\n".join("".join(traceback.format_stack(frame)) for frame in stacks)
