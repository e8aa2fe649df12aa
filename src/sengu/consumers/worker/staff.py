"""Who handles, in a process: the user's consumers, made and set up, and where their jobs run.

Imported by `process`.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from sengu.consumers.api import SHARED, Consumer, Found, is_coroutine
from sengu.consumers.model.spec import ConsumerSpec
from sengu.consumers.worker.gate import Gate
from sengu.consumers.worker.hand import Assigned
from sengu.consumers.worker.job import chain
from sengu.consumers.worker.runners import Endings, Pool, Tasks
from sengu.model.consume import ConsumeOptions

_TEARDOWN_SECONDS = 10.0


class Staff:
    """All of a process. Endings of their jobs are in `endings`."""

    def __init__(self, found: Sequence[Found], worker: Any) -> None:
        """Makes them; `worker` is the Process that they are in."""
        options: ConsumeOptions = worker.options
        self.endings = Endings()
        self.gate = Gate()
        self._worker = worker
        self._tasks: Tasks | None = None
        self._made = [one.make() for one in found]
        self._to_tear_down: list[Consumer] = []
        self._shares = options.share_threads
        shared = None if self._shares is None else self._pool("shared", self._shares)
        self._suspects = self._pool("suspects", 1)
        self.equip()
        self.assigned = [
            self._assign(timed(one.spec, options.job_timeout_seconds), made, shared)
            for one, made in zip(found, self._made, strict=True)
        ]

    def equip(self) -> None:
        """Give them what their process has."""
        for made in self._made:
            for name in SHARED:
                setattr(made, name, getattr(self._worker, name))

    def set_up(self) -> None:
        """Raises what the user's code raises."""
        for made in self._made:
            self._to_tear_down.append(made)
            self._call(made.setup)

    def tear_down(self) -> None:
        """The last that is called; raises what the user's code raises. An event loop that is stuck
        is not waited for.
        """
        while self._to_tear_down:
            self._call(self._to_tear_down.pop().teardown, _TEARDOWN_SECONDS)

    def _assign(self, spec: ConsumerSpec, made: Consumer, shared: Pool | None) -> Assigned:
        handle = chain(spec, made.handle)
        if is_coroutine(made):
            tasks = self._event_loop()
            return Assigned(spec, handle, tasks, tasks, spec.prefetch)
        runner = shared or self._pool(spec.name, spec.threads)
        # A suspect waits behind nobody: others' threads may be at the gate.
        return Assigned(spec, handle, runner, self._suspects, self._shares or spec.threads)

    def _pool(self, name: str, threads: int) -> Pool:
        return Pool(name, threads, self.gate, self.endings)

    def _event_loop(self) -> Tasks:
        if self._tasks is None:
            self._tasks = Tasks("async", self.gate, self.endings)
        return self._tasks

    def _call(self, method: Any, patience: float | None = None) -> None:
        if inspect.iscoroutinefunction(method):
            self._event_loop().call(method, patience)
        else:
            method()


def timed(spec: ConsumerSpec, seconds: float | None) -> ConsumerSpec:
    """With this time limit, unless it has one of its own."""
    if spec.timeout_seconds is not None or seconds is None:
        return spec
    return msgspec.structs.replace(spec, timeout_seconds=seconds)
