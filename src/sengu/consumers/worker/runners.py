"""Where jobs run: threads, or an event loop in a thread of its own. How they end comes back through
`Endings`, to the thread that has the connection.

All threads are daemons: one that is stuck in a job does not keep the process from ending.
"""

import asyncio
import contextlib
import os
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from sengu.consumers.model.judge import Ending, Outcome
from sengu.consumers.worker.gate import Gate
from sengu.consumers.worker.job import Job


class Endings:
    """A box for jobs that have ended, and a descriptor that is readable when some are in it."""

    def __init__(self) -> None:
        self._box: deque[tuple[Job, Ending]] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_woken = False

    def fileno(self) -> int:
        return self._fd

    def put(self, job: Job, ending: Ending) -> None:
        """In any thread."""
        self._box.append((job, ending))
        if not self._is_woken:
            self._is_woken = True
            os.eventfd_write(self._fd, 1)

    def take(self) -> list[tuple[Job, Ending]]:
        """In the thread of the connection."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        self._is_woken = False  # before the box is emptied: who comes now wakes us once more
        taken = []
        while self._box:
            taken.append(self._box.popleft())
        return taken


class Runner(Protocol):
    """What runs jobs."""

    def start(self, job: Job) -> None:
        """Run it as soon as there is room."""

    def withdraw(self, job: Job) -> bool:
        """Take it back, if it has not begun."""

    def expire(self, job: Job, *, again: bool) -> Ending | None:
        """Its time is up. How it ended with that; None if that is still to come through the box,
        and `again` if it did not.
        """


class Pool:
    """Threads. A job that is stuck keeps its thread, and the pool gets another in its place."""

    def __init__(self, name: str, threads: int, gate: Gate, endings: Endings) -> None:
        self._name = name
        self._gate = gate
        self._endings = endings
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for _ in range(threads):
            self._begin_thread()

    def start(self, job: Job) -> None:
        self._waiting.put(job)

    def withdraw(self, job: Job) -> bool:
        return self._gate.withdraw(job)

    def expire(self, job: Job, *, again: bool) -> Ending | None:
        if not self._gate.leave(job):  # it has ended this very moment
            return None
        self._begin_thread()
        return Ending(Outcome.TIMED_OUT, _too_long(job), stack_of(job.thread_id))

    def _begin_thread(self) -> None:
        threading.Thread(target=self._work, name=f"job-{self._name}", daemon=True).start()

    def _work(self) -> None:
        """Until a job was stuck: then another thread has this one's place."""
        has_place = True
        while has_place:
            job = self._waiting.get()
            if self._gate.enter(job):
                ending = job.run()
                has_place = self._gate.leave(job)
                self._endings.put(job, ending)
                if has_place:
                    job.report(ending)


class Tasks:
    """An event loop: all jobs that there are run at the same time."""

    def __init__(self, name: str, gate: Gate, endings: Endings) -> None:
        self._gate = gate
        self._endings = endings
        self._loop = asyncio.new_event_loop()
        self._held: list[Job] = []
        gate.on_open.append(self._on_open)
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._cancelled: set[Job] = set()
        self._thread = threading.Thread(target=self._run, name=f"jobs-{name}", daemon=True)
        self._thread.start()

    def start(self, job: Job) -> None:
        self._loop.call_soon_threadsafe(self._begin, job)

    def _on_open(self) -> None:
        self._loop.call_soon_threadsafe(self._begin_held)

    def call(
        self, function: Callable[[], Coroutine[Any, Any, Any]], patience: float | None
    ) -> None:
        """Run a coroutine function to its end, from another thread. Raises TimeoutError."""
        asyncio.run_coroutine_threadsafe(function(), self._loop).result(patience)

    def withdraw(self, job: Job) -> bool:
        return self._gate.withdraw(job)

    def expire(self, job: Job, *, again: bool) -> Ending | None:
        """Cancelled, it ends by itself, and what it is waiting for is told."""
        if not again:
            self._loop.call_soon_threadsafe(self._cancel, job)
            return None
        task = self._running.get(job)
        if task is None or not self._gate.leave(job):
            return None
        return Ending(
            Outcome.TIMED_OUT,
            f"{_too_long(job)}, and it goes on when cancelled",
            self._stack_of(task),
        )

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self, job: Job) -> None:
        may_begin = self._gate.try_to_enter(job)
        if may_begin is None:
            self._held.append(job)
        elif may_begin:
            task = self._loop.create_task(self._work(job))
            self._running[job] = task
            task.add_done_callback(lambda _task: self._forget(job))

    def _begin_held(self) -> None:
        held, self._held = self._held, []
        for job in held:
            self._begin(job)

    def _forget(self, job: Job) -> None:
        self._running.pop(job, None)
        self._cancelled.discard(job)

    async def _work(self, job: Job) -> None:
        ending = await job.run_async()
        self._gate.leave(job)
        if ending.outcome is Outcome.FAILED and job in self._cancelled:
            ending = Ending(Outcome.TIMED_OUT, _too_long(job), ending.stack)
        self._endings.put(job, ending)
        job.report(ending)

    def _cancel(self, job: Job) -> None:
        task = self._running.get(job)
        if task is not None:
            self._cancelled.add(job)
            task.cancel()

    def _stack_of(self, task: asyncio.Task[None]) -> str:
        """Where it is: waiting for something, or running."""
        if asyncio.current_task(self._loop) is task:
            return stack_of(self._thread.ident or 0)
        awaited: Any = task.get_coro()
        lines: list[str] = []
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            lines += traceback.format_stack(frame, 1)
            awaited = awaited.cr_await
        return "".join(lines)


def stack_of(thread_id: int) -> str:
    """Where a thread is."""
    frame = sys._current_frames().get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame))


def _too_long(job: Job) -> str:
    return f"not done after {job.spec.timeout_seconds:g} s"
