"""The steps of generations: commands that run before one is prepared (`--pre-deploy`).

One runs at a time, as a child like any other: it goes on when the server dies, and the next server
hears how it has ended. Imported by `server.execute` and `server.adopt`.
"""

import shlex
import signal

import msgspec

from sengu.errors import UsageError, describe_error
from sengu.listeners.listeners import Layout
from sengu.model import events as ev
from sengu.model.actions import KillStep, StartStep, StopStep
from sengu.model.observed import Generation, Step
from sengu.model.service import ServiceSpec
from sengu.planner.reduce import Fact
from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.posix.procfs import has_group
from sengu.server.children import Children, Exec
from sengu.server.core import Reporter
from sengu.server.environment import Environments, generation_environment
from sengu.server.output import Relay
from sengu.server.stage import Stage

_LIFELINE_FD = 3
_PREFIX = "predeploy/"  # keys are predeploy/GENERATION/NUMBER
_WELL = "exit status 0"
_NOT_NEEDED = "was not run: it was not needed any more"
_UNSEEN = "was lost: there was no room to watch it"


class Tools(msgspec.Struct, frozen=True):
    """What all steps are run with."""

    spec: ServiceSpec
    loop: Loop
    children: Children
    stage: Stage
    environments: Environments
    reporter: Reporter


class _Running:
    """The step that runs: its process, and what it writes. Both its outputs are one, in order."""

    def __init__(self, tools: Tools, generation: int, number: int) -> None:
        """Raises OSError."""
        self.key = _key(generation, number)
        self.asked = 0  # the signal that it was asked to stop with
        self.relay = Relay(tools.loop, tools.stage.sink, tools.stage.store, f"output/{self.key}")
        self._tools = tools
        self._generation = generation
        self._number = number
        self._process: Process | None = None
        self._how = ""

    def start(self, order: Exec) -> None:
        """Have it made. Raises OSError, ValueError; nothing is left then."""
        try:
            self._tools.children.spawn(self.key, order, self)
        except (OSError, ValueError):
            self.relay.abandon()
            raise
        self.relay.start()

    def resume(self) -> None:
        """Go on with one that was there before us."""
        self.relay.start()
        self._tools.children.adopt(self.key, self)

    def signal(self, number: int) -> None:
        """To all of its process group; it hears as soon as it is there."""
        self.asked = number
        if self._process is None:
            return
        if number == signal.SIGKILL:
            self._tools.children.kill_group(self._process)
        elif has_group(self._process.pid):
            self._tools.children.signal_group(self._process, number)
        else:  # it has just been born
            self._process.signal(number)

    def born(self, process: Process) -> None:
        self._process = process
        if self.asked:
            self.signal(self.asked)

    def not_born(self, problem: str) -> None:
        self._tell(f"was not run: {problem}")
        self.relay.abandon()

    def ended(self, how: str) -> None:
        assert self._process is not None
        if self.asked:
            # A shell dies before the program that it runs: that has its time too.
            self._how = how
        else:
            # What it has left in the background would go on beside the new generation.
            self._tools.children.kill_group(self._process)
            self._tell("" if how == _WELL else f"ended with {how}")
        self._tools.children.reap(self.key)

    def gone(self) -> None:
        if self.asked:
            self._tell(f"ended with {self._how}")

    def _tell(self, problem: str) -> None:
        words = self.relay.last_words()  # which also goes to the log, before it is told
        fact = ev.StepEnded(self._generation, self._number, problem, words if problem else "")
        self._tools.reporter.post(fact)


class Steps:
    """Has steps run, one after the other, as the planner says."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: _Running | None = None
        self._missing: list[tuple[int, Step, str]] = []

    def start(self, action: StartStep) -> Fact:
        """Have one made; facts tell how it ends."""
        command = shlex.join(self._tools.spec.pre_deploy[action.step])
        try:
            self._start(action.generation, action.step)
        except (OSError, ValueError, UsageError) as error:
            problem = f"--pre-deploy {command!r} was not run: {describe_error(error)}"
            return ev.GenerationFailed(action.generation, problem)
        return ev.StepStarted(action.generation, action.step, command)

    def stop(self, action: StopStep) -> Fact:
        """Ask it, and all in its process group, to stop."""
        self._signal(signal.SIGTERM)
        return ev.StepStopping(action.generation, action.kill_at, action.reason)

    def kill(self, action: KillStep) -> Fact:
        self._signal(signal.SIGKILL)
        return ev.StepKilled(action.generation, action.reason)

    def adopt(self, generation: Generation) -> None:
        """Take over the generation's step that was running. Raises OSError."""
        step = generation.step
        if step is None:
            return
        key, children = _key(generation.number, step.number), self._tools.children
        if children.has(key):
            self._running = _Running(self._tools, generation.number, step.number)
            if step.kill_at is not None:
                self._running.asked = signal.SIGTERM
            if step.is_killed:
                self._running.asked = signal.SIGKILL
            self._running.resume()
        else:
            problem = _UNSEEN if key in children.names(key) else ""
            self._missing.append((generation.number, step, problem))

    def go_on(self) -> None:
        """Run what was asked for and nobody has seen: not even its order has left."""
        for generation, step, seen in self._missing:
            problem = seen or self._repeat(generation, step)
            if problem:
                self._tools.reporter.post(ev.StepEnded(generation, step.number, problem))
        self._missing.clear()

    def _repeat(self, generation: int, step: Step) -> str:
        """Returns what is in the way."""
        if step.kill_at is not None or step.is_killed:
            return _NOT_NEEDED
        try:
            self._start(generation, step.number)
        except (OSError, ValueError, UsageError) as error:
            return f"was not run: {describe_error(error)}"
        return ""

    def _start(self, generation: int, number: int) -> None:
        """Raises OSError, ValueError, UsageError; nothing is left then."""
        tools = self._tools
        base = tools.environments.look()
        running = _Running(tools, generation, number)
        write_end, layout = running.relay.write_end, Layout({}, {}, _LIFELINE_FD)
        stage = tools.stage
        running.start(
            Exec(
                argv=tools.spec.pre_deploy[number],
                environment=generation_environment(base, tools.spec.name, generation, layout),
                descriptors={
                    0: stage.null_fd,
                    1: write_end,
                    2: write_end,
                    _LIFELINE_FD: stage.lifeline_fd,
                },
                directory=stage.directory,
                has_old_limit=True,
            )
        )
        self._running = running

    def _signal(self, number: int) -> None:
        if self._running is not None:
            self._running.signal(number)


def _key(generation: int, number: int) -> str:
    return f"{_PREFIX}{generation}/{number}"
