"""A pure fake of the shell: the planner's world without processes, sockets or waiting.

`World` gives the server's core hands that work on fake processes, and a clock of its own. What
happens is chosen by a history, a list of steps; `World.story()` tells what came of it.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import assert_never

import msgspec

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.actions import AnyAction
from sengu.model.observed import Observed
from sengu.model.service import Pacing, ReadyAfterDelay, ServiceSpec
from sengu.planner import plan
from sengu.planner.reduce import Fact
from sengu.server.core import Core, Turn
from tests.unit.support_steps import (
    HEALTHY,
    Ask,
    Die,
    Fate,
    Heal,
    Loading,
    LoseForkServers,
    Next,
    Pace,
    RefuseForks,
    SpoilGenerations,
    Stall,
    Step,
    Stick,
    Wait,
    Wake,
    WearOut,
)

_START = 1000.0
_MAX_ROUNDS = 10_000

Doing = ev.WorkerStarted | ev.WorkerReady | ev.WorkerBeat | ev.WorkerExited
Loaded = ev.GenerationPrepared | ev.GenerationFailed


class Change(msgspec.Struct, frozen=True):
    """A line of the record: a fact, made by an action of the planner's or (None) from outside."""

    at: float
    action: AnyAction | None
    fact: Fact
    before: Observed
    after: Observed


class Quiet(msgspec.Struct, frozen=True):
    """A line of the record: the planner has nothing left to say."""

    at: float
    observed: Observed
    wake_at: float | None


class _Process(msgspec.Struct, frozen=True):
    fate: Fate
    started_at: float


class World:
    """One service in a fake shell."""

    def __init__(self, spec: ServiceSpec, *, keeps_record: bool = True) -> None:
        self.spec = spec
        self.now = _START
        self.finished: do.FinishService | None = None
        self.record: list[Step | Change | Quiet] = []
        self._keeps_record = keeps_record
        self._core = Core(spec, lambda: self.now, self)
        self._core.on_fact(self._on_fact)
        self._causes: dict[int, AnyAction] = {}
        self._actions = 0  # since time has passed
        self._processes: dict[int, _Process] = {}
        self._timetable: list[tuple[float, int, Doing | Loaded]] = []
        self._loads: deque[Loading] = deque()
        self._fork_servers: set[int] = set()  # by generation, those that load included
        self._scheduled = 0
        self._pacing = Pacing()
        self._fates: deque[Fate] = deque()
        self._refusals = 0
        self._spoiled = 0

    @property
    def observed(self) -> Observed:
        return self._core.observed

    @property
    def wake_at(self) -> float | None:
        """When the planner wants to look again."""
        return self._core.wake_at

    # --- what a history says ---

    def play(self, *steps: Step) -> None:
        for step in steps:
            self._actions = 0
            self._note(step)
            self._take(step)

    def _take(self, step: Step) -> None:  # noqa: PLR0912
        end = self.now
        facts: tuple[Fact, ...] = ()
        match step:
            case Next():
                self._fates.extend([step.fate] * step.count)
            case Pace():
                self._pacing = step.pacing
            case RefuseForks():
                self._refusals += step.count
            case SpoilGenerations():
                self._spoiled += step.count
            case Loading():
                self._loads.extend([step] * step.count)
            case LoseForkServers():
                facts = self._lose_fork_servers()
            case WearOut():
                facts = tuple(ev.WorkerWorn(w, "enough") for w in self._living(step.which))
            case Stick():
                facts = tuple(ev.WorkerOverdue(w, "GET /stuck") for w in self._living(step.which))
            case Heal():
                self._fates.clear()
                self._loads.clear()
                self._refusals = self._spoiled = 0
                self._pacing = Pacing()
            case Die():
                self._die(step.which)
            case Wait():
                end += step.seconds
            case Stall():
                self.now = end = end + step.seconds
            case Wake():
                end = end if self.wake_at is None else self.wake_at
            case Ask():
                facts = step.facts
            case _:
                assert_never(step)
        if facts and self.finished is None:
            self._settle(facts)
        self._pass_time_to(end)

    def _die(self, which: int) -> None:
        for worker in self._living(which):
            self._will_exit(worker, 0.0, "signal KILL")

    def _living(self, which: int) -> list[int]:
        """The living worker of that number, if anybody lives."""
        living = sorted(self._processes)
        return [living[which % len(living)]] if living else []

    def _lose_fork_servers(self) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for number in sorted(self._fork_servers):
            generation = self.observed.generations.get(number)
            if generation is not None and generation.prepared:
                facts.append(ev.GenerationLost(number, "it ended with signal KILL"))
            elif generation is not None:
                facts.append(ev.GenerationFailed(number, "signal KILL while loading"))
        self._fork_servers.clear()
        return tuple(facts)

    def story(self) -> str:
        """The record, for people."""
        lines: list[str] = []
        for line in self.record:
            match line:
                case Change(at, None, fact):
                    lines.append(f"{at - _START:8.2f}      {fact}")
                case Change(at, action, fact):
                    lines.append(f"{at - _START:8.2f}  ->  {action}")
                    if isinstance(fact, ev.StartFailed | ev.GenerationFailed):
                        lines.append(f"{'':8}      {fact}")
                case Quiet():
                    pass
                case step:
                    lines.append(f"{'':8}  {step}")
        return "\n".join(lines)

    # --- what the server's loop does ---

    def _pass_time_to(self, end: float) -> None:
        """Do all that happens up to `end`, each in its moment."""
        rounds = 0
        while self.finished is None:
            moments = [when for when, _, _ in self._timetable[:1]]
            if self.wake_at is not None:
                moments.append(self.wake_at)
            if not moments or min(moments) > end:
                break
            if min(moments) > self.now:
                self.now = min(moments)
                rounds = self._actions = 0
            rounds += 1
            assert rounds < _MAX_ROUNDS, "busy without end"
            self._settle(self._happen())
        self.now = max(self.now, end)

    def _settle(self, facts: Iterable[Fact]) -> None:
        """Let the core take all facts in, and let them have their consequences."""
        for fact in facts:
            self._core.post(fact)
        self._core.settle(self)
        if not plan(self.spec, self.observed, self.now).actions:  # else it goes on after a breath
            self._note(Quiet(self.now, self.observed, self.wake_at))

    def _on_fact(self, turn: Turn) -> None:
        fact = turn.fact
        self._note(
            Change(self.now, self._causes.pop(id(fact), None), fact, turn.before, turn.after)
        )

    def write(self, fact: Fact, at: float, wall: float) -> None:
        pass

    def _note(self, line: Step | Change | Quiet) -> None:
        if self._keeps_record:
            self.record.append(line)

    # --- what the server's hands do ---

    def execute(self, action: AnyAction) -> Fact:
        self._actions += 1
        assert self._actions < _MAX_ROUNDS, "the planner does not come to rest"
        fact = self._carry_out(action)
        self._causes[id(fact)] = action
        return fact

    def _carry_out(self, action: AnyAction) -> Fact:
        match action:
            case do.RequestDeploy():
                return ev.DeployRequested(action.by)
            case do.PrepareGeneration():
                return self._prepare(action.generation)
            case do.AbandonPreparation():
                self._fork_servers.discard(action.generation)
                return ev.GenerationFailed(action.generation, action.reason)
            case do.RetireGeneration():
                self._fork_servers.discard(action.generation)
                return ev.GenerationRetired(action.generation)
            case do.StartWorker():
                return self._start(action)
            case do.DeclareReady():
                return ev.WorkerReady(action.worker, action.reason)
            case do.StopWorker():
                return self._stop(action)
            case do.KillWorker():
                self._will_exit(action.worker, 0.0, "signal KILL")
                return ev.WorkerKilled(action.worker, action.reason)
            case do.ConcludeDeploy():
                return ev.DeployConcluded(
                    action.generation, action.outcome, action.reason, action.last_words
                )
            case do.FinishService():
                self.finished = action
                return ev.ServiceStopped(action.failure)
            case _:
                assert_never(action)

    def _prepare(self, generation: int) -> Fact:
        if self._spoiled:
            self._spoiled -= 1
            return ev.GenerationFailed(generation, "cannot read env: no such directory")
        if self.spec.application is None:
            return ev.GenerationPrepared(generation, self._pacing)
        self._fork_servers.add(generation)
        load = self._loads.popleft() if self._loads else Loading(0.0)
        if load.seconds is not None:
            loaded: Loaded = ev.GenerationPrepared(generation, self._pacing)
            if load.fails:
                loaded = ev.GenerationFailed(generation, "ImportError", "traceback")
            self._will(load.seconds, loaded)
        return ev.GenerationPreparing(generation, self._pacing)

    def _start(self, action: do.StartWorker) -> Fact:
        if self._refusals:
            self._refusals -= 1
            return ev.StartFailed(action.generation, action.slot, "cannot start a process")
        worker = action.worker
        assert worker not in self._processes
        started = ev.WorkerStarted(
            worker, action.generation, action.slot, 100 + worker, action.reason
        )
        if self.spec.application is not None:
            assert action.generation in self._fork_servers, "nobody is there to fork"
        self._will(0.0, started)
        fate = self._fates.popleft() if self._fates else HEALTHY
        self._processes[worker] = _Process(fate, self.now)
        says_so = not isinstance(self.spec.boot.readiness, ReadyAfterDelay)
        if says_so and fate.ready_after is not None:
            self._will(fate.ready_after, ev.WorkerReady(worker, "said READY=1"))
        if fate.dies_after is not None:
            self._will_exit(worker, fate.dies_after, "exit status 1")
        self._will_beat(worker)
        return ev.WorkerRequested(worker, action.generation, action.slot, action.reason)

    def _stop(self, action: do.StopWorker) -> Fact:
        fate = self._processes[action.worker].fate
        if fate.exits_after is not None:
            self._will_exit(action.worker, fate.exits_after, "exit status 0")
        return ev.WorkerStopping(
            action.worker, action.signal, action.kill_at, action.reason, action.failed
        )

    # --- what processes do ---

    def _happen(self) -> Iterator[Fact]:
        """What processes have done up to now, in its order."""
        while self._timetable and self._timetable[0][0] <= self.now:
            fact = heapq.heappop(self._timetable)[2]
            if isinstance(fact, Loaded):
                if fact.generation in self._fork_servers:
                    yield fact
                continue
            if fact.worker not in self._processes:
                continue
            if isinstance(fact, ev.WorkerBeat):
                self._will_beat(fact.worker)
            elif isinstance(fact, ev.WorkerExited):
                del self._processes[fact.worker]
            yield fact

    def _will(self, seconds: float, fact: Doing | Loaded) -> None:
        self._scheduled += 1  # keeps facts of one moment in their order
        heapq.heappush(self._timetable, (self.now + seconds, self._scheduled, fact))

    def _will_exit(self, worker: int, seconds: float, how: str) -> None:
        assert worker in self._processes
        self._will(seconds, ev.WorkerExited(worker, how, f"last words of {worker}"))

    def _will_beat(self, worker: int) -> None:
        """Twice in the watchdog's time, for as long as its fate allows."""
        process = self._processes[worker]
        until = process.fate.beats_until
        is_alive = until is None or self.now - process.started_at < until
        if self.spec.watchdog_seconds is not None and is_alive:
            self._will(self.spec.watchdog_seconds / 2, ev.WorkerBeat(worker))
