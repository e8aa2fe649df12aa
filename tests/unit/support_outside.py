"""What outlives a server, in the fake: processes, fork servers, and what they have to tell.

Imported by `support_world`, whose server looks after it.
"""

import heapq
import math
from collections import deque

import msgspec

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.service import Pacing, ReadyAfterDelay, ServiceSpec
from sengu.planner.reduce import Fact
from tests.unit.support_steps import HEALTHY, Command, Fate, Loading

NO_PROCESS = "no process: "


class Process(msgspec.Struct, frozen=True):
    fate: Fate
    started_at: float


class _Birth(msgspec.Struct, frozen=True):
    """A process is about to be made; of an application by that fork server."""

    order: do.StartWorker
    fork_server: int | None


class _Emptied(msgspec.Struct, frozen=True):
    """Nobody waits in the queues of a worker any more. Who wants to know it has to look."""


class _Loaded(msgspec.Struct, frozen=True):
    """That fork server has something to say about its application."""

    fork_server: int
    fact: ev.GenerationPrepared | ev.GenerationFailed


class _CommandEnds(msgspec.Struct, frozen=True):
    """A step of a generation ends, if it still runs."""

    fact: ev.StepEnded


_Doing = ev.WorkerReady | ev.WorkerBeat | ev.WorkerExited
_Happening = _Birth | _Loaded | _CommandEnds | _Emptied | _Doing


class Outside:
    """All that happens without a server. `unheard` is what none has taken in yet, in its order."""

    def __init__(self, spec: ServiceSpec, now: float) -> None:
        self.now = now
        self.unheard: deque[Fact] = deque()
        self.processes: dict[int, Process] = {}
        self.fork_servers: dict[int, int] = {}  # by generation, those that load included
        self.environments: set[int] = set()  # of programs' generations
        self.fates: deque[Fate] = deque()
        self.loads: deque[Loading] = deque()
        self.commands: deque[Command] = deque()
        self.running: dict[tuple[int, int], Command] = {}  # by generation and number
        self.run: list[tuple[int, int]] = []  # all that ever were
        self.births: deque[float | None] = deque()
        self.crowds: deque[float | None] = deque()
        self.refusals = 0
        self.is_reading = True
        self.made: dict[int, Fate] = {}  # all that ever were
        self._empty_at: dict[int, float] = {}  # queues of workers that are steered past
        self._spec = spec
        self._timetable: list[tuple[float, int, _Happening]] = []
        self._scheduled = 0
        self._last_fork_server = 0

    @property
    def next_at(self) -> float | None:
        """When something happens next."""
        return self._timetable[0][0] if self._timetable else None

    def heal(self) -> None:
        self.fates.clear()
        self.loads.clear()
        self.commands.clear()
        self.births.clear()
        self.crowds.clear()
        self.refusals = 0

    def collect(self) -> None:
        """Let all happen that happens up to now."""
        while self._timetable and self._timetable[0][0] <= self.now:
            match heapq.heappop(self._timetable)[2]:
                case _Birth() as birth:
                    self._be_born(birth)
                case _Loaded() as loaded:
                    self._say_loaded(loaded)
                case _CommandEnds(fact):
                    if self.running.pop((fact.generation, fact.step), None) is not None:
                        self.unheard.append(fact)
                case _Emptied():
                    pass
                case fact:
                    self._do(fact)

    # --- what a server orders ---

    def order(self, action: do.StartWorker) -> None:
        """Have the process of a worker made; or made again, if that was ordered before."""
        if self._spec.application is None:
            self._will(0.0, _Birth(action, None))
            return
        fork_server = self.fork_servers.get(action.generation)
        seconds = self.births.popleft() if self.births else 0.0
        if fork_server is not None and seconds is not None:
            self._will(seconds, _Birth(action, fork_server))

    def load(self, generation: int, pacing: Pacing) -> None:
        """Start a fork server."""
        self._last_fork_server += 1
        self.fork_servers[generation] = self._last_fork_server
        load = self.loads.popleft() if self.loads else Loading(0.0)
        if load.seconds is not None:
            fact: ev.GenerationPrepared | ev.GenerationFailed
            fact = ev.GenerationPrepared(generation, pacing)
            if load.fails:
                fact = ev.GenerationFailed(generation, "ImportError", "traceback")
            self._will(load.seconds, _Loaded(self._last_fork_server, fact))

    def end_fork_server(self, generation: int) -> bool:
        """Whether there was one. What it has said is not heard any more."""
        said = (ev.GenerationPrepared, ev.GenerationFailed)
        self.unheard = deque(
            fact
            for fact in self.unheard
            if not (isinstance(fact, said) and fact.generation == generation)
        )
        return self.fork_servers.pop(generation, None) is not None

    def ask_configuration(self, generation: int, inquiry: int) -> None:
        """Answered at once, if there is anybody who could and `is_reading`."""
        if generation in self.fork_servers and self.is_reading:
            self.unheard.append(ev.Configured(generation, True, inquiry=inquiry))

    def has_drained(self, worker: int) -> bool:
        """Steer connections past it, if they are not yet; whether its queues are empty."""
        if worker not in self._empty_at:
            seconds = self.crowds.popleft() if self.crowds else 0.0
            self._empty_at[worker] = math.inf if seconds is None else self.now + seconds
            if seconds is not None:
                self._will(seconds, _Emptied())
        return self._empty_at[worker] <= self.now

    def run_command(self, generation: int, number: int) -> None:
        """Run a step."""
        assert not self.running, "one beside another"
        assert (generation, number) not in self.run, "twice"
        command = self.commands.popleft() if self.commands else Command(0.0)
        self.running[generation, number] = command
        self.run.append((generation, number))
        if command.seconds is not None:
            problem = "ended with exit status 1" if command.fails else ""
            self._command_ends(generation, number, command.seconds, problem)

    def ask_command_to_stop(self, generation: int, number: int) -> None:
        command = self.running.get((generation, number))
        if command is not None and command.exits_after is not None:
            self._command_ends(generation, number, command.exits_after, "ended with signal TERM")

    def kill_command(self, generation: int, number: int) -> None:
        self._command_ends(generation, number, 0.0, "ended with signal KILL")

    def _command_ends(self, generation: int, number: int, seconds: float, problem: str) -> None:
        words = "words of the command" if problem else ""
        fact = ev.StepEnded(generation, number, problem, words)
        self._will(seconds, _CommandEnds(fact))

    def ask_to_stop(self, worker: int) -> None:
        process = self.processes.get(worker)
        if process is not None and process.fate.exits_after is not None:
            self.will_exit(worker, process.fate.exits_after, "exit status 0")

    def urge(self, worker: int) -> None:
        """Ask it by another signal, which it may heed."""
        process = self.processes.get(worker)
        if process is not None and process.fate.yields_after is not None:
            self.will_exit(worker, process.fate.yields_after, "exit status 0")

    def kill(self, worker: int) -> None:
        self.will_exit(worker, 0.0, "signal KILL")

    def bury(self, worker: int) -> None:
        """KILL it, and look away."""
        self.processes.pop(worker, None)

    # --- what processes do ---

    def will_exit(self, worker: int, seconds: float, how: str) -> None:
        self._will(seconds, ev.WorkerExited(worker, how, f"last words of {worker}"))

    def _will(self, seconds: float, what: _Happening) -> None:
        self._scheduled += 1  # keeps what happens in one moment in its order
        heapq.heappush(self._timetable, (self.now + seconds, self._scheduled, what))

    def _be_born(self, birth: _Birth) -> None:
        order = birth.order
        worker = order.worker
        if birth.fork_server is not None and (
            self.fork_servers.get(order.generation) != birth.fork_server
        ):
            return  # it has died before
        if worker in self.made:
            return  # ordered twice: the second is killed when its birth is told
        if self.refusals:
            self.refusals -= 1
            self.unheard.append(ev.WorkerExited(worker, f"{NO_PROCESS}cannot fork"))
            return
        fate = self.fates.popleft() if self.fates else HEALTHY
        self.made[worker] = fate
        self.processes[worker] = Process(fate, self.now)
        pid = 100 + worker
        self.unheard.append(
            ev.WorkerStarted(worker, order.generation, order.slot, pid, order.reason)
        )
        says_so = not isinstance(self._spec.boot.readiness, ReadyAfterDelay)
        if says_so and fate.ready_after is not None:
            self._will(fate.ready_after, ev.WorkerReady(worker, "said READY=1"))
        if fate.dies_after is not None:
            self.will_exit(worker, fate.dies_after, f"exit status {fate.dies_with}")
        self._will_beat(worker)

    def _say_loaded(self, loaded: _Loaded) -> None:
        generation = loaded.fact.generation
        if self.fork_servers.get(generation) != loaded.fork_server:
            return
        if isinstance(loaded.fact, ev.GenerationFailed):
            del self.fork_servers[generation]
        self.unheard.append(loaded.fact)

    def _do(self, fact: _Doing) -> None:
        if fact.worker not in self.processes:
            return
        if isinstance(fact, ev.WorkerBeat):
            self._will_beat(fact.worker)
        elif isinstance(fact, ev.WorkerExited):
            del self.processes[fact.worker]
        self.unheard.append(fact)

    def _will_beat(self, worker: int) -> None:
        """Twice in the watchdog's time, for as long as its fate allows."""
        process = self.processes[worker]
        until = process.fate.beats_until
        is_alive = until is None or self.now - process.started_at < until
        if self._spec.watchdog_seconds is not None and is_alive:
            self._will(self._spec.watchdog_seconds / 2, ev.WorkerBeat(worker))
