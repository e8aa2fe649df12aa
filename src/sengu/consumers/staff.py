"""Who handles, in a process: the user's consumers, made and set up, and where their jobs run.

Imported by `process`.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from sengu.consumers.api import Consumer, Found, is_coroutine
from sengu.consumers.gate import Gate
from sengu.consumers.job import chain
from sengu.consumers.runners import Endings, Pool, Tasks
from sengu.consumers.spec import ConsumerSpec
from sengu.consumers.subscription import Assigned
from sengu.model.consume import ConsumeOptions


class Staff:
    """All of a process. Endings of their jobs are in `endings`."""

    def __init__(
        self, found: Sequence[Found], options: ConsumeOptions, log: logging.Logger
    ) -> None:
        """Makes and sets them up; raises what the user's code raises."""
        self.endings = Endings()
        self.gate = Gate()
        self._tasks: Tasks | None = None
        self._made: list[Consumer] = []
        self.assigned: list[Assigned] = []
        self._shares = options.share_threads
        shared = None if self._shares is None else self._pool("shared", self._shares)
        self._suspects = self._pool("suspects", 1)
        for one in found:
            made = one.make()
            made.log = log
            self._call(made.setup)
            self._made.append(made)
            spec = timed(one.spec, options.job_timeout_seconds)
            self.assigned.append(self._assign(spec, made, shared))

    def tear_down(self) -> None:
        """The last that is called; raises what the user's code raises."""
        for made in self._made:
            self._call(made.teardown)
        self.endings.close()

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

    def _call(self, method: Any) -> None:
        if inspect.iscoroutinefunction(method):
            self._event_loop().call(method)
        else:
            method()


def timed(spec: ConsumerSpec, seconds: float | None) -> ConsumerSpec:
    """With this time limit, unless it has one of its own."""
    if spec.timeout_seconds is not None or seconds is None:
        return spec
    return msgspec.structs.replace(spec, timeout_seconds=seconds)
