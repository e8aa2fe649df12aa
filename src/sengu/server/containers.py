"""Containers as workers: what their runners are told, and that none outlives its runner for long.

A runner removes its container. One that is killed cannot, and the engine keeps the container
running: then a sweep does it, a child that takes its time beside the loop. Imported by
`server.instance` and `server.crew`.
"""

import os
import sys

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.server.children import Children, Exec
from sengu.server.core import Reporter, Turn
from sengu.server.stage import Stage

_RUNNER = (sys.executable, "-P", "-m", "sengu.container")
_LAST_SECONDS = 15.0  # for an engine that answers within one


def worker_command(spec: ServiceSpec) -> tuple[str, ...]:
    """What is executed for a worker: the command, or the runner of a container."""
    container = spec.container
    if container is None:
        return spec.command
    signals = dict.fromkeys((spec.stop.signal, spec.retire.signal))
    order = {
        **msgspec.to_builtins(container),
        "stop_signals": list(signals),
        "grace_seconds": spec.stop.grace_seconds,
    }
    return (*_RUNNER, "run", msgspec.json.encode(order).decode())


class Containers:
    """Sweeps up after runners that were killed.

    A container whose runner died unasked serves on until there is another one in its place, and is
    stopped as by a deploy then. One whose runner was killed as its time was over is killed too.
    """

    def __init__(
        self, spec: ServiceSpec, loop: Loop, children: Children, stage: Stage, reporter: Reporter
    ) -> None:
        self._spec = spec
        self._loop = loop
        self._children = children
        self._stage = stage
        self._warn = reporter.warn
        self._is_owed = True  # somebody before us may have left some
        self._next: bool | None = None  # a sweep is to follow the one that runs: at once, or asking
        self._sweep: _Sweep | None = None
        self._count = 0

    def on_fact(self, turn: Turn) -> None:
        """Notice who was killed, and who has taken a place."""
        fact = turn.fact
        if self._spec.container is None or not turn.is_news:
            return
        if isinstance(fact, ev.WorkerExited):
            self._note_exit(fact, turn.before)
        elif isinstance(fact, ev.WorkerReady):
            self._settle()
        elif isinstance(fact, ev.ServerAdopted):  # what the last one had begun ended with it
            self._start(at_once=False)

    def finish(self) -> None:
        """The service has ended: none of its containers stays. Waits, but not for ever."""
        if self._spec.container is None or self._children.is_orphaned:
            return
        self._start(at_once=True)
        limit = self._loop.now() + _LAST_SECONDS
        while self._sweep is not None and self._loop.now() < limit:
            self._loop.run_once(limit)
        if self._sweep is not None:
            engine = self._spec.container.engine[0]
            self._warn(f"{engine} does not answer; containers may be left: {engine} ps")

    def ended(self, sweep: "_Sweep") -> None:
        """Nothing is left of that sweep."""
        if sweep is self._sweep:
            self._sweep = None
            if self._next is not None:
                self._start(self._next)

    def fail(self, problem: str) -> None:
        self._warn(f"cannot look for containers without a runner: {problem}")

    def reap(self, sweep: "_Sweep") -> None:
        self._children.reap(sweep.key)

    def _note_exit(self, fact: ev.WorkerExited, before: Observed) -> None:
        worker = before.workers.get(fact.worker)
        if worker is not None and worker.is_wanted:
            self._settle()  # the one that should have taken the place has failed
            self._is_owed = True
        elif not fact.how.startswith("exit status"):
            self._start(at_once=True)

    def _settle(self) -> None:
        if self._is_owed:
            self._is_owed = False
            self._start(at_once=False)

    def _start(self, at_once: bool) -> None:
        """Sweep, after the one that runs; what is to go at once does not wait for who is asked."""
        running = self._sweep
        if running is not None and (running.at_once or not at_once):
            self._next = at_once or bool(self._next)
            return
        if running is not None:
            self._children.end(running.key)
        self._next = None
        self._count += 1
        self._sweep = sweep = _Sweep(self, f"sweep/{os.getpid()}/{self._count}", at_once)
        try:
            self._children.spawn(sweep.key, self._order(at_once), sweep)
        except OSError as error:
            sweep.not_born(error.strerror or str(error))

    def _order(self, at_once: bool) -> Exec:
        container = self._spec.container
        assert container is not None
        chore = {"engine": container.engine, "service": self._spec.name, "now": at_once}
        return Exec(
            argv=(*_RUNNER, "sweep", msgspec.json.encode(chore).decode()),
            environment=os.environ,
            descriptors={0: self._stage.null_fd, 1: 1, 2: 2},
            directory=self._stage.directory,
        )


class _Sweep:
    """One child. `at_once`: containers are killed, not asked."""

    def __init__(self, containers: Containers, key: str, at_once: bool) -> None:
        self._containers = containers
        self.key = key
        self.at_once = at_once

    def born(self, _process: Process) -> None:
        """It sweeps."""

    def not_born(self, problem: str) -> None:
        self._containers.fail(problem)
        self._containers.ended(self)

    def ended(self, _how: str) -> None:
        self._containers.reap(self)  # it has told on stderr what it did, or could not do

    def gone(self) -> None:
        self._containers.ended(self)
