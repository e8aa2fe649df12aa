"""A pure fake of the shell: the planner's world without processes, sockets or waiting.

`World` gives the server's core hands that work on fake processes, and a clock of its own. What
happens is chosen by a history, a list of steps; `World.story()` tells what came of it. The server
may be lost in the middle of anything: the next one has its record, and what it finds `Outside`.
"""

from collections import deque
from collections.abc import Callable
from typing import assert_never

import msgspec

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.actions import AnyAction
from sengu.model.observed import Observed, Phase
from sengu.model.service import Pacing, ServiceSpec
from sengu.planner import initial, plan, reduce
from sengu.planner.reduce import Fact
from sengu.server.core import Core, Turn
from tests.unit.support_outside import NO_PROCESS, Outside
from tests.unit.support_steps import (
    Ask,
    Command,
    Crowd,
    Die,
    Fate,
    Future,
    Heal,
    Loading,
    LoseForkServers,
    LoseServer,
    Next,
    Pace,
    RefuseForks,
    RunOut,
    SlowForks,
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
_MAX_LINES = 30  # written since the last snapshot

_decode_fact: Callable[[bytes], Fact] = msgspec.msgpack.Decoder(Fact).decode
_decode_snapshot = msgspec.msgpack.Decoder(Observed).decode
_encode = msgspec.msgpack.Encoder().encode


class Change(msgspec.Struct, frozen=True):
    """A line of the record: a fact, made by an action of the planner's or (None) from outside."""

    at: float
    action: AnyAction | None
    fact: Fact
    before: Observed
    after: Observed


class Quiet(msgspec.Struct, frozen=True):
    """A line of the record: the planner has nothing left to say. `living` are all processes."""

    at: float
    observed: Observed
    wake_at: float | None
    living: frozenset[int]


class _Line(msgspec.Struct, frozen=True):
    """What is written down of a fact; `action` is for our own record."""

    data: bytes
    at: float
    action: AnyAction | None

    @property
    def fact(self) -> Fact:
        return _decode_fact(self.data)


class _Member(msgspec.Struct):
    """What the server knows of a worker's process. `asked` is what to do when it is born."""

    generation: int
    is_born: bool = False
    asked: Phase | None = None


class _ServerLostError(Exception):
    """The server is killed, here and now."""


class World:
    """One service in a fake shell."""

    def __init__(self, spec: ServiceSpec, *, keeps_record: bool = True) -> None:
        self.spec = spec
        self.finished: do.FinishService | None = None
        self.record: list[Step | Change | Quiet] = []
        self._keeps_record = keeps_record
        self._outside = Outside(spec, _START)
        self._actions = 0  # since time has passed
        self._pacing = Pacing()
        self._lacking = 0
        self._spoiled = 0
        self._losses: deque[LoseServer] = deque()
        self._instants = 0  # since the last loss
        # What is written down. So many of these lines have been taken in.
        self._snapshot = _encode(initial(spec))
        self._lines: list[_Line] = []
        self._taken = 0
        self._start_server()

    def _start_server(self) -> None:
        self._core = Core(self.spec, lambda: self.now, self)
        self._core.on_fact(self._on_fact)
        self._members: dict[int, _Member] = {}
        self._causes: dict[int, AnyAction] = {}
        self._outbox: deque[Callable[[], None]] = deque()
        self._asked_commands: dict[int, Phase] = {}  # by generation
        self._overdue: deque[int] = deque()  # workers whose birth is not waited for any longer

    @property
    def now(self) -> float:
        return self._outside.now

    @property
    def observed(self) -> Observed:
        return self._core.observed

    @property
    def wake_at(self) -> float | None:
        """When the planner wants to look again."""
        return self._core.wake_at

    @property
    def fates(self) -> dict[int, Fate]:
        """Of all processes that ever were."""
        return self._outside.made

    @property
    def living(self) -> frozenset[int]:
        """All processes, whether anybody knows of them or not."""
        return frozenset(self._outside.processes)

    @property
    def commands_run(self) -> list[tuple[int, int]]:
        """Generation and number of all commands that ever ran before one."""
        return self._outside.run

    @property
    def absence_seconds(self) -> float:
        """For how long no server will be there, if all happens that is to come."""
        return sum(loss.away_seconds for loss in self._losses)

    # --- what a history says ---

    def play(self, *steps: Step) -> None:
        for step in steps:
            self._actions = 0
            self._note(step)
            self._take(step)

    def _take(self, step: Step) -> None:
        end = self.now
        match step:
            case Wait():
                end += step.seconds
            case Stall():
                self._outside.now = end = end + step.seconds
            case Wake():
                end = end if self.wake_at is None else self.wake_at
            case LoseForkServers():
                self._lose_fork_servers()
            case WearOut() | Stick() | Die():
                self._befall(step)
            case Ask():
                self._outside.unheard.extend(step.facts)
            case _:
                self._prepare_for(step)
        if (self._outside.unheard or self._losses) and self.finished is None:
            self._settle()
        self._pass_time_to(max(end, self.now))

    def _prepare_for(self, step: Future) -> None:  # noqa: PLR0912
        outside = self._outside
        match step:
            case Next():
                outside.fates.extend([step.fate] * step.count)
            case Pace():
                self._pacing = step.pacing
            case RefuseForks():
                outside.refusals += step.count
            case RunOut():
                self._lacking += step.count
            case Crowd():
                outside.crowds.extend([step.seconds] * step.count)
            case SlowForks():
                outside.births.extend([step.seconds] * step.count)
            case SpoilGenerations():
                self._spoiled += step.count
            case Loading():
                outside.loads.extend([step] * step.count)
            case Command():
                outside.commands.extend([step] * step.count)
            case LoseServer():
                if not self._losses:
                    self._instants = 0
                self._losses.append(step)
            case Heal():
                outside.heal()
                self._lacking = self._spoiled = 0
                self._pacing = Pacing()
                self._losses.clear()
            case _:
                assert_never(step)

    def _befall(self, step: WearOut | Stick | Die) -> None:
        """Something befalls the living worker of that number, if anybody lives."""
        living = sorted(self._outside.processes)
        if not living:
            return
        worker = living[step.which % len(living)]
        match step:
            case WearOut():
                self._outside.unheard.append(ev.WorkerWorn(worker, "enough"))
            case Stick():
                self._outside.unheard.append(ev.WorkerOverdue(worker, "GET /stuck"))
            case Die():
                self._outside.kill(worker)

    def _lose_fork_servers(self) -> None:
        """The server sees that they have ended, and knows who will not be born now."""
        for number in sorted(self._outside.fork_servers):
            self._outside.end_fork_server(number)
            generation = self.observed.generations.get(number)
            if generation is not None and generation.prepared:
                lost = ev.GenerationLost(number, "it ended with signal KILL")
                self._outside.unheard.append(lost)
            elif generation is not None:
                failed = ev.GenerationFailed(number, "signal KILL while loading")
                self._outside.unheard.append(failed)
            for worker in self._unborn(number):
                exited = ev.WorkerExited(worker, f"{NO_PROCESS}its fork server ended")
                self._outside.unheard.append(exited)

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
            moments = [at for at in (self._outside.next_at, self.wake_at) if at is not None]
            if not moments or min(moments) > end:
                break
            if min(moments) > self.now:
                self._outside.now = min(moments)
                rounds = self._actions = 0
            rounds += 1
            assert rounds < _MAX_ROUNDS, "busy without end"
            self._settle()
        self._outside.now = max(self.now, end)

    def _settle(self) -> None:
        """Let the server take all facts in, and let them have their consequences."""
        is_adopting = False
        while True:
            self._outside.collect()
            try:
                if is_adopting:
                    self._adopt()
                self._run_server()
                break
            except _ServerLostError:
                self._outside.now += self._losses.popleft().away_seconds
                self._instants = 0
                is_adopting = True
        if self.finished is not None:
            return
        if not plan(self.spec, self.observed, self.now).actions:  # else it goes on after a breath
            self._note(Quiet(self.now, self.observed, self.wake_at, self.living))
        if len(self._lines) > _MAX_LINES and self._taken == len(self._lines):
            self._snapshot = _encode(self.observed)
            self._lines.clear()
            self._taken = 0

    def _run_server(self) -> None:
        self._may_be_lost()
        unheard = self._outside.unheard
        while unheard:
            self._hear(unheard[0])
            self._may_be_lost()
            unheard.popleft()
        self._core.settle(self)
        while self._outbox or self._overdue:
            while self._outbox:
                self._may_be_lost()
                self._outbox.popleft()()
            while self._overdue:
                self._give_up(self._overdue.popleft())
            self._core.settle(self)
        self._follow()

    def _follow(self) -> None:
        """As the passage: look at the queues of those who drain, whoever began it."""
        draining = [
            worker.id
            for worker in self.observed.workers.values()
            if worker.phase is Phase.DRAINING and not worker.drained
        ]
        for worker in draining:
            if self._outside.has_drained(worker):
                self._core.post(ev.WorkerDrained(worker, "nobody waits in its queues"))
                self._may_be_lost()
                self._core.settle(self)

    def _hear(self, fact: Fact) -> None:
        if isinstance(fact, ev.WorkerStarted):
            self._born(fact)
        elif not isinstance(fact, ev.WorkerExited):
            self._core.post(fact)
        elif fact.how.startswith(NO_PROCESS):
            self._not_born(fact.worker, fact.how)
        elif fact.worker in self._members:
            self._core.post(fact)
            del self._members[fact.worker]

    def _on_fact(self, turn: Turn) -> None:
        """A fact was taken in: for the first time, or again by one who was not there then."""
        if not turn.is_news:
            self._replayed += 1
            if self._replayed <= self._taken:
                return
        at, action = self.now, None
        if not isinstance(turn.fact, ev.WorkerBeat):
            line = self._lines[self._taken]
            assert line.fact == turn.fact
            self._taken += 1
            at, action = line.at, line.action
        self._note(Change(at, action, turn.fact, turn.before, turn.after))
        if isinstance(turn.fact, ev.ServiceStopped):
            assert isinstance(action, do.FinishService)
            self.finished = action

    def _note(self, line: Step | Change | Quiet) -> None:
        if self._keeps_record:
            self.record.append(line)

    # --- how it is lost ---

    def _may_be_lost(self) -> None:
        """A moment in which the server may be killed."""
        self._instants += 1
        if self._losses and self._instants > self._losses[0].after:
            raise _ServerLostError

    def write(self, fact: Fact, at: float, _wall: float) -> None:
        """Implements `core.Record`."""
        if isinstance(fact, ev.WorkerBeat):
            return
        self._may_be_lost()
        action = self._causes.pop(id(fact), None)
        self._lines.append(_Line(_encode(fact), at, action))
        self._may_be_lost()

    def _adopt(self) -> None:
        """As `server.adopt`: take over what the last server has left."""
        known = self._what_was_known()
        self._start_server()
        self._replayed = 0
        self._core.observed = _decode_snapshot(self._snapshot)
        for line in list(self._lines):
            self._core.replay(line.fact, line.at, 0.0)
        assert self._taken == len(self._lines)
        # Beats are not written down: from the adoption on they are counted anew.
        adopted = ev.ServerAdopted(1, 0, 0, 0, 0)
        assert reduce(self.spec, self.observed, adopted, self.now) == reduce(
            self.spec, known, adopted, self.now
        )
        if self.finished is None:
            self._take_over()

    def _what_was_known(self) -> Observed:
        """By the server that is lost: what it has taken in, and what it has just written down."""
        known = self.observed
        for line in self._lines[self._taken :]:
            known = reduce(self.spec, known, line.fact, line.at)
        return known

    def _take_over(self) -> None:
        self._drop_what_only_the_old_server_was_told()
        unheard = self._outside.unheard
        ended = {fact.worker for fact in unheard if isinstance(fact, ev.WorkerExited)}
        ended &= self.observed.workers.keys()
        living = set(self._outside.processes)
        workers = list(self.observed.workers.values())
        missing = [worker for worker in workers if worker.id not in living | ended]
        lost = self._find_generations()
        for worker in workers:
            if worker in missing:
                assert not worker.pid
                continue
            is_asked = not worker.is_wanted
            member = _Member(worker.generation, worker.pid > 0, worker.phase if is_asked else None)
            self._members[worker.id] = member
            if not worker.pid:
                pid = 100 + worker.id
                self._born(
                    ev.WorkerStarted(worker.id, worker.generation, worker.slot, pid, "it is")
                )
        unwanted = living - self._members.keys()
        for number in unwanted:
            self._outside.bury(number)
        found = (len(living) - len(unwanted), len(ended), len(unwanted), len(missing))
        self._core.post(ev.ServerAdopted(1, *found))
        for number in lost:
            self._core.post(ev.GenerationLost(number, "it was not there any more"))
        self._find_commands()
        for worker in missing:
            order = do.StartWorker(worker.id, worker.generation, worker.slot, "again")
            if not worker.is_wanted:
                self._core.post(ev.WorkerExited(worker.id, f"{NO_PROCESS}not needed any more"))
            elif isinstance(self._start(order), ev.StartFailed):
                self._core.post(ev.WorkerExited(worker.id, f"{NO_PROCESS}it cannot be asked for"))

    def _find_commands(self) -> None:
        """One that was asked for and did never run is run now, unless it is not wanted any more."""
        outside = self._outside
        ended = {(f.generation, f.step) for f in outside.unheard if isinstance(f, ev.StepEnded)}
        for generation in self.observed.generations.values():
            step = generation.step
            if step is None or (generation.number, step.number) in ended | outside.running.keys():
                continue
            if step.kill_at is not None or step.is_killed:
                self._core.post(ev.StepEnded(generation.number, step.number, "was not run"))
            else:
                outside.run_command(generation.number, step.number)

    def _drop_what_only_the_old_server_was_told(self) -> None:
        """The next one is told of each child anew; what fork servers say waits in their sockets."""
        told = (ev.WorkerStarted, ev.GenerationLost, ev.GenerationFailed)
        self._outside.unheard = deque(
            fact
            for fact in self._outside.unheard
            if not isinstance(fact, told)
            and not (isinstance(fact, ev.WorkerExited) and fact.how.startswith(NO_PROCESS))
        )

    def _find_generations(self) -> list[int]:
        """Those are lost that lack what their next worker would need."""
        lost = []
        generations = self.observed.generations
        in_use = {n for n, g in generations.items() if g.prepared or g.preparing_since is not None}
        for number in self._outside.fork_servers.keys() - in_use:
            self._outside.end_fork_server(number)
        for number in in_use:
            if self.spec.application is not None:
                if number not in self._outside.fork_servers:
                    lost.append(number)
            elif number not in self._outside.environments:  # what was not held yet is read again
                self._outside.environments.add(number)
        return lost

    # --- what the server's hands do ---

    def execute(self, action: AnyAction) -> Fact:
        self._actions += 1
        assert self._actions < _MAX_ROUNDS, "the planner does not come to rest"
        fact = self._carry_out(action)
        self._causes[id(fact)] = action
        return fact

    def _carry_out(self, action: AnyAction) -> Fact:  # noqa: PLR0912
        match action:
            case do.RequestDeploy():
                return ev.DeployRequested(action.by)
            case do.RequestStop():
                return ev.StopRequested(action.by, urgent=True, exit_code=action.exit_code)
            case do.StartStep():
                self._outbox.append(lambda: self._run_command(action.generation, action.step))
                return ev.StepStarted(action.generation, action.step, "command")
            case do.StopStep():
                self._ask_command(action.generation, Phase.STOPPING)
                return ev.StepStopping(action.generation, action.kill_at, action.reason)
            case do.KillStep():
                self._ask_command(action.generation, Phase.KILLED)
                return ev.StepKilled(action.generation, action.reason)
            case do.PrepareGeneration():
                return self._prepare(action.generation)
            case do.AbandonPreparation():
                self._end_fork_server(action.generation)
                return ev.GenerationFailed(action.generation, action.reason)
            case do.AskConfiguration():
                number, inquiry = action.generation, action.inquiry
                self._outbox.append(lambda: self._outside.ask_configuration(number, inquiry))
                return ev.ConfigureSent(number, inquiry)
            case do.AbandonInquiry():
                self._end_fork_server(action.generation)
                self._outside.unheard.append(ev.GenerationLost(action.generation, "it hangs"))
                return ev.ConfigureFailed(action.generation, action.inquiry, action.reason)
            case do.RetireGeneration():
                self._outside.environments.discard(action.generation)
                self._end_fork_server(action.generation)
                return ev.GenerationRetired(action.generation)
            case do.StartWorker():
                return self._start(action)
            case do.DeclareReady():
                return ev.WorkerReady(action.worker, action.reason)
            case do.DrainWorker():
                return ev.WorkerDraining(action.worker, action.until, action.reason)
            case do.StopWorker():
                return self._stop(action)
            case do.UrgeWorker():
                if self._members[action.worker].is_born:
                    self._outside.urge(action.worker)
                return ev.WorkerUrged(action.worker, action.signal, action.reason)
            case do.KillWorker():
                return self._kill(action)
            case do.ConcludeDeploy():
                return ev.DeployConcluded(
                    action.generation, action.outcome, action.reason, action.last_words
                )
            case do.FinishService():
                return ev.ServiceStopped(action.failure)
            case _:
                assert_never(action)

    def _run_command(self, generation: int, number: int) -> None:
        self._outside.run_command(generation, number)
        asked = self._asked_commands.get(generation)
        if asked is not None:
            self._ask_command(generation, asked)

    def _ask_command(self, generation: int, asked: Phase) -> None:
        """It hears at once; or when it runs, if its order has not left."""
        self._asked_commands[generation] = asked
        for number in [number for one, number in self._outside.running if one == generation]:
            if asked is Phase.KILLED:
                self._outside.kill_command(generation, number)
            else:
                self._outside.ask_command_to_stop(generation, number)

    def _prepare(self, generation: int) -> Fact:
        pacing = self._pacing
        if self._spoiled:
            self._spoiled -= 1
            return ev.GenerationFailed(generation, "cannot read env: no such directory")
        if self.spec.application is None:
            self._outbox.append(lambda: self._outside.environments.add(generation))
            return ev.GenerationPrepared(generation, pacing)
        self._end_fork_server(generation)
        self._outbox.append(lambda: self._outside.load(generation, pacing))
        return ev.GenerationPreparing(generation, pacing)

    def _end_fork_server(self, generation: int) -> None:
        self._outside.end_fork_server(generation)
        for worker in self._unborn(generation):
            self._not_born(worker, f"{NO_PROCESS}its fork server ended")

    def _start(self, action: do.StartWorker) -> ev.WorkerRequested | ev.StartFailed:
        is_lonely = (
            self.spec.application is not None
            and action.generation not in self._outside.fork_servers
        )
        if self._lacking or is_lonely:
            self._lacking -= not is_lonely
            return ev.StartFailed(action.generation, action.slot, "cannot start a process")
        self._members[action.worker] = _Member(action.generation)
        self._outbox.append(lambda: self._outside.order(action))
        return ev.WorkerRequested(action.worker, action.generation, action.slot, action.reason)

    def _stop(self, action: do.StopWorker) -> Fact:
        member = self._members[action.worker]
        member.asked = Phase.STOPPING
        if member.is_born:  # else it hears as soon as it is there
            self._outside.ask_to_stop(action.worker)
        return ev.WorkerStopping(
            action.worker,
            action.signal,
            action.kill_at,
            action.reason,
            action.failed,
            urgings=action.urgings,
        )

    def _kill(self, action: do.KillWorker) -> Fact:
        member = self._members[action.worker]
        member.asked = Phase.KILLED
        if member.is_born:
            self._outside.kill(action.worker)
        elif self.spec.application is not None:
            self._overdue.append(action.worker)
        return ev.WorkerKilled(action.worker, action.reason)

    # --- births ---

    def _born(self, fact: ev.WorkerStarted) -> None:
        member = self._members.get(fact.worker)
        if member is None:
            self._outside.bury(fact.worker)  # given up meanwhile
            return
        if member.is_born:
            return
        member.is_born = True
        if member.asked is Phase.STOPPING:
            self._outside.ask_to_stop(fact.worker)
        elif member.asked is Phase.KILLED:
            self._outside.kill(fact.worker)
        self._core.post(fact)

    def _not_born(self, worker: int, how: str) -> None:
        member = self._members.get(worker)
        if member is not None and not member.is_born:
            del self._members[worker]
            self._core.post(ev.WorkerExited(worker, how))

    def _give_up(self, worker: int) -> None:
        member = self._members.get(worker)
        if member is not None and not member.is_born:
            self._core.post(ev.GenerationLost(member.generation, "it hangs"))
            self._not_born(worker, f"{NO_PROCESS}its fork server did not make it in time")

    def _unborn(self, generation: int) -> list[int]:
        """Workers that were asked for, and of whose birth nothing was heard."""
        members = self._members.items()
        return [
            w for w, member in members if member.generation == generation and not member.is_born
        ]
