"""Containers as workers: what their runners are told, and that none outlives its runner for long.

A runner removes its container. One that is killed cannot, and the engine keeps the container
running: then a sweep does it, a child that takes its time beside the loop. Imported by
`server.instance` and `server.crew`.
"""

import os
import sys

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Observed, Phase
from sengu.model.service import ServiceSpec
from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.server.children import Children, Exec
from sengu.server.core import Reporter, Turn
from sengu.server.stage import Stage

_RUNNER = (sys.executable, "-P", "-m", "sengu.container")
_KEY = "sweep/"  # and the server's pid, so that no key comes twice
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
        self._may_be_left = False  # some of our own
        self._next: bool | None = None  # another is to follow: at once, or asking
        self._running: dict[str, _Sweep] = {}
        self._count = 0
        for key in children.names(_KEY):
            if children.has(key):  # an engine that is killed in the midst of it leaves a mess
                self._running[key] = sweep = _Sweep(self, key, at_once=False)
                children.adopt(key, sweep)

    def on_fact(self, turn: Turn) -> None:
        """Notice who was killed, and who has taken a place."""
        fact = turn.fact
        if self._spec.container is None:
            return
        if not turn.is_news:
            self._may_be_left = True
            return
        if isinstance(fact, ev.WorkerExited):
            self._note_exit(fact, turn.before)
        elif isinstance(fact, ev.WorkerReady):
            self._settle()
        elif isinstance(fact, ev.ServerAdopted):  # what the last one meant to do is not on record
            self._start(at_once=False)

    def finish(self) -> None:
        """The service has ended: none of its containers stays. Waits, but not for ever."""
        if self._spec.container is None:
            return
        if self._may_be_left and not self._is_running(
            at_once=True
        ):  # else it was begun after the last exit
            self._start(at_once=True)
        limit = self._loop.now() + _LAST_SECONDS
        while self._running and self._loop.now() < limit:
            self._loop.run_once(limit)
        if self._running:
            engine = self._spec.container.engine[0]
            self._warn(f"{engine} does not answer; containers may be left: {engine} ps")

    def ended(self, sweep: "_Sweep") -> None:
        """Nothing is left of that sweep."""
        self._running.pop(sweep.key, None)
        if self._next is not None and not self._is_running(self._next):
            self._start(self._next)

    def fail(self, problem: str) -> None:
        self._warn(f"cannot look for containers without a runner: {problem}")

    def reap(self, sweep: "_Sweep") -> None:
        self._children.reap(sweep.key)

    def _note_exit(self, fact: ev.WorkerExited, before: Observed) -> None:
        worker = before.workers.get(fact.worker)
        was_killed = not fact.how.startswith("exit status")
        self._may_be_left = self._may_be_left or was_killed
        if worker is not None and worker.is_wanted:
            self._settle()  # the one that should have taken the place has failed
            self._is_owed = True
        elif was_killed:
            self._start(at_once=worker is None or worker.phase is Phase.KILLED)

    def _settle(self) -> None:
        if self._is_owed:
            self._is_owed = False
            self._start(at_once=False)

    def _is_running(self, at_once: bool) -> bool:
        """Whether one runs that is as quick."""
        return any(sweep.at_once or not at_once for sweep in self._running.values())

    def _start(self, at_once: bool) -> None:
        """Sweep, after one that runs; but what is to go at once does not wait for who is asked."""
        if self._children.is_orphaned:  # the next start will do it
            return
        if self._is_running(at_once):
            self._next = at_once or bool(self._next)
            return
        self._next = None
        self._count += 1
        sweep = _Sweep(self, f"{_KEY}{os.getpid()}/{self._count}", at_once)
        self._running[sweep.key] = sweep
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
