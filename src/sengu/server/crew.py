"""The crew: the living processes behind the planner's workers, and all that belongs to each.

Has them started, signals them, and turns what they say, and their death, into facts.
"""

import contextlib
import signal
from collections.abc import Iterator, Mapping

from sengu.model import events as ev
from sengu.model.actions import StartWorker
from sengu.model.observed import Phase, Worker
from sengu.model.service import ReadyByNotify, ReadyByProbe, ServiceSpec
from sengu.posix.descriptors import close_all
from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.server.children import Children
from sengu.server.core import Reporter
from sengu.server.forkservers import ForkServers
from sengu.server.member import Member, equip, worker_key
from sengu.server.probe import Prober, http_request
from sengu.server.remnants import Remnants
from sengu.server.stage import Stage
from sengu.server.worker_plan import worker_process
from sengu.wire.forkserver import Fork
from sengu.wire.scoreboard import Line

_EXTEND = "EXTEND_TIMEOUT_USEC"
_MOST_DIGITS = 20  # of what systemd takes, 64 bits
_WORN = "X_SENGU_WORN"  # what a worker says that has served enough (worker.runtime)


class _Guard:
    """Tells the crew what becomes of one worker's process."""

    def __init__(self, crew: "Crew", worker: int) -> None:
        self._crew = crew
        self._worker = worker

    def born(self, process: Process) -> None:
        self._process = process
        self._crew.born(self._worker, process)

    def not_born(self, problem: str) -> None:
        self._crew.not_born(self._worker, problem)

    def ended(self, how: str) -> None:
        self._crew.ended(self._worker, self._process, how)

    def gone(self) -> None:
        self._crew.gone(self._worker)


class Crew:
    """All workers' processes by worker id."""

    def __init__(
        self, spec: ServiceSpec, loop: Loop, children: Children, stage: Stage, reporter: Reporter
    ) -> None:
        self._spec = spec
        self._loop = loop
        self._children = children
        self._stage = stage
        self._members: dict[int, Member] = {}
        self._remnants = Remnants(loop, children, spec.stop)
        self.post = reporter.post
        self.warn = reporter.warn

    def start(self, action: StartWorker, base: dict[str, str]) -> None:
        """Have the worker's process started. Raises OSError, ValueError; nothing is left then."""
        with contextlib.ExitStack() as undo:
            member = equip(self._loop, self._stage, action)
            undo.callback(member.abandon)
            undo.callback(self._stage.cgroups.clear, member.key)
            order = worker_process(self._spec, self._stage, member, base)
            self._children.spawn(member.key, order, _Guard(self, action.worker))
            undo.pop_all()
        self._members[action.worker] = member
        member.start_relays()

    def request(self, action: StartWorker, fork_servers: ForkServers) -> None:
        """Ask the generation's fork server for the worker. Raises OSError; nothing is left then."""
        scoreboard = self._stage.scoreboard
        assert scoreboard is not None
        with contextlib.ExitStack() as undo:
            line = scoreboard.take()
            undo.callback(scoreboard.give_back, line)
            member = equip(self._loop, self._stage, action, line)
            undo.callback(member.abandon)
            undo.callback(self._stage.cgroups.clear, member.key)
            self._send_order(member, fork_servers)
            undo.pop_all()
        if member.line != line:  # asked for before, it has one already
            scoreboard.give_back(line)
        self._members[action.worker] = member

    def adopt(self, worker: Worker) -> bool:
        """Take over the worker's process; whether there is one. Raises OSError."""
        key = worker_key(worker.id)
        if not self._children.has(key):
            return False
        member = self._inherit(worker)
        member.stop_signal = _asked_by(worker)
        self._members[worker.id] = member
        self._children.adopt(key, _Guard(self, worker.id))
        return True

    def adopt_remnants(self) -> None:
        """What workers have left who have exited, as is known."""
        for key in self._children.names(worker_key("")):
            worker = key.removeprefix(worker_key(""))
            # By its fork server an application may have named a child of its own anyhow.
            if worker.isdecimal() and self._children.has_ended(key):
                self._children.adopt(key, _Guard(self, int(worker)))

    def born(self, worker: int, process: Process) -> None:
        """The worker's process lives: it was asked for, or was there before us."""
        member = self._members.get(worker)
        if member is None:  # one of `adopt_remnants`
            return
        is_news = not member.was_told
        member.process = process
        member.notify.start(process.pid, lambda message: self._hear(worker, message))
        member.start_relays()
        if is_news:
            if member.stop_signal:  # before its birth is on record: who follows asks once more
                process.signal(member.stop_signal)
            action = member.action
            self.post(
                ev.WorkerStarted(worker, action.generation, action.slot, process.pid, action.reason)
            )
        if member.is_to_look:
            process.signal(signal.SIGUSR2)
        if isinstance(self._spec.boot.readiness, ReadyByProbe) and not member.stop_signal:
            self._probe(self._spec.boot.readiness, member)

    def not_born(self, worker: int, problem: str) -> None:
        """There will be no process for a worker that was asked for."""
        member = self._members.get(worker)
        if member is not None:
            member.notify.close()
            words = member.last_words()
            member.abandon()
            self._stage.cgroups.clear(member.key)
            self._forget(ev.WorkerExited(worker, f"no process: {problem}", words))

    def signal(self, worker: int, number: int) -> None:
        """Ask the worker to stop; whether it gets ready does not matter any more."""
        member = self._members[worker]
        member.stop_signal = number
        member.stop_probing()
        if member.process is None:  # it hears as soon as it is there
            return
        if member.exited is not None:
            self._children.signal_group(member.process, number)
        elif not self._kernel_has_said(number):
            member.process.signal(number)

    def _kernel_has_said(self, number: int) -> bool:
        """Whether it was the parent-death signal. Some take a second one for impatience."""
        is_executed = self._spec.application is None
        return is_executed and self._children.is_orphaned and number == self._spec.stop.signal

    def signal_all(self, number: int) -> None:
        """Tell every living worker; they are not being stopped."""
        for member in self._members.values():
            if member.process is not None and member.exited is None:
                member.process.signal(number)

    def tell_configured(self, generation: int) -> None:
        """Its workers are to look at their configuration; who is about to be born, when it is."""
        for member in self._members.values():
            if member.action.generation == generation and member.exited is None:
                if member.process is None:
                    member.is_to_look = True
                else:
                    member.process.signal(signal.SIGUSR2)

    def last_words(self, worker: int) -> str:
        """The end of what it has written to stderr so far."""
        return self._members[worker].last_words()

    def kill(self, worker: int) -> None:
        """KILL the worker and everything in its process group and its cgroup."""
        member = self._members[worker]
        member.stop_signal = signal.SIGKILL
        if member.process is not None:
            self._children.kill_group(member.process)  # else it hears as soon as it is there
            self._stage.cgroups.clear(member.key)
        # That it is gone is told after this has been, as it is for those who die of it.
        exited = member.exited
        if exited is not None:
            self._loop.call_at(self._loop.now(), lambda: self._forget(exited))
        elif member.process is None and self._spec.application is not None:
            self._loop.call_at(self._loop.now(), lambda: self._give_up(worker))

    def close(self) -> None:
        """The service has ended; so does what crashed workers have left behind."""
        self._remnants.kill()

    def problem_of(self, worker: int) -> str:
        """What keeps it from being ready, as far as anybody looks; empty if nothing is known."""
        prober, passage = self._members[worker].prober, self._stage.passage
        if prober is not None:
            return prober.last_problem
        return passage.problem_of(worker) if passage is not None else ""

    def pid_of(self, worker: int) -> int | None:
        """None when it has no process, or none any more."""
        member = self._members.get(worker)
        return None if member is None or member.process is None else member.process.pid

    def said_ready(self, worker: int) -> bool:
        """Whether it has sent READY=1 to its NOTIFY_SOCKET."""
        member = self._members.get(worker)
        return member is not None and member.said_ready

    def lines(self, worker: int) -> list[Line]:
        """What the worker tells of itself on the scoreboard, if it does."""
        scoreboard, member = self._stage.scoreboard, self._members.get(worker)
        if scoreboard is None or member is None or member.line is None:
            return []
        return scoreboard.read(member.line)

    def serving(self) -> Iterator[int]:
        """Workers that live and were not asked to stop."""
        for worker, member in self._members.items():
            if member.process is not None and member.exited is None and not member.stop_signal:
                yield worker

    def ended(self, worker: int, process: Process, how: str) -> None:
        """The worker's process has exited."""
        member = self._members.get(worker)
        if member is None:  # that is known already
            self._remnants.end(worker, process)
            return
        member.notify.drain()
        exited = ev.WorkerExited(worker, how, member.last_words())
        self._stage.bury(exited, member.line, was_asked=bool(member.stop_signal))
        member.stop_probing()
        member.notify.close()
        if not member.stop_signal:
            self._forget(exited)
            self._remnants.end(worker, process)
            return
        member.exited = exited
        if member.stop_signal == signal.SIGKILL:
            self._forget(exited)
        else:
            # A shell does not pass on what it is asked, and leaves the program it ran.
            self._children.signal_group(process, member.stop_signal)
        self._children.reap(member.key)

    def gone(self, worker: int) -> None:
        """Nobody is left in its process group either."""
        self._stage.cgroups.clear(worker_key(worker))
        member = self._members.get(worker)
        if member is not None and member.exited is not None:
            self._forget(member.exited)
        self._remnants.forget(worker)

    def _inherit(self, worker: Worker) -> Member:
        """The member of a worker that was asked for before our time. Raises OSError."""
        action = StartWorker(worker.id, worker.generation, worker.slot, "asked for earlier")
        member = equip(self._loop, self._stage, action)
        member.was_told = worker.pid > 0
        return member

    def unborn(self, generation: int) -> list[int]:
        """Workers that were asked for, and of whose birth nothing was heard."""
        return [
            worker
            for worker, member in self._members.items()
            if member.process is None and member.action.generation == generation
        ]

    def _give_up(self, worker: int) -> None:
        """Do not wait for the birth of a worker any longer."""
        member = self._members.get(worker)
        if member is not None and member.process is not None:  # it has just come
            self._children.kill_group(member.process)
        elif member is not None:
            # The next preparation of the generation ends the fork server that hangs.
            self.post(ev.GenerationLost(member.action.generation, "it hangs"))
            self._children.give_up(member.key, "its fork server did not make it in time")

    def _send_order(self, member: Member, fork_servers: ForkServers) -> None:
        action, line, name = member.action, member.line, member.notify.name
        given = {**member.open_outputs(), **self._stage.layout(action.slot).own}
        assert line is not None
        cgroup = self._stage.cgroups.open(member.key)
        own = [] if cgroup is None else [cgroup]
        targets = tuple(given)
        fork = Fork(
            action.worker, member.key, action.slot, name, line, targets, enters_cgroup=bool(own)
        )
        try:
            fork_servers.order(action.generation, fork, (*given.values(), *own))
        finally:
            close_all(own)
        member.start_relays()
        self._children.expect(member.key, _Guard(self, action.worker))

    def _probe(self, readiness: ReadyByProbe, member: Member) -> None:
        target = self._stage.probe_target(member.action.slot)
        assert target is not None  # the command line asks for a stream listener with a probe
        request = None if readiness.path is None else http_request(readiness.path)
        worker = member.action.worker

        def on_ready(reason: str) -> None:
            self.post(ev.WorkerReady(worker, reason))

        member.prober = Prober(self._loop, target, member.born.pid, request, on_ready)

    def _hear(self, worker: int, message: Mapping[str, str]) -> None:
        if message.get("READY") == "1":
            self._members[worker].said_ready = True
            if isinstance(self._spec.boot.readiness, ReadyByNotify):
                self.post(ev.WorkerReady(worker, "said READY=1"))
        extends_seconds = _seconds(message.get(_EXTEND, ""))
        if extends_seconds:
            self.post(ev.WorkerSaid(worker, "", extends_seconds))
        if "STATUS" in message:
            self.post(ev.WorkerSaid(worker, message["STATUS"]))
        if message.get("WATCHDOG") == "1":
            self.post(ev.WorkerBeat(worker))
        if _WORN in message and self._spec.application is not None:
            self.post(ev.WorkerWorn(worker, message[_WORN]))

    def _forget(self, exited: ev.WorkerExited) -> None:
        member = self._members.pop(exited.worker, None)
        if member is None:  # killed, and gone before that was settled: it has been told
            return
        self._stage.give_back(member.line)
        self.post(exited)


def _asked_by(worker: Worker) -> int:
    """The signal by which the worker was asked to stop, 0 if it was not."""
    return signal.SIGKILL if worker.phase is Phase.KILLED else worker.stop_signal


def _seconds(microseconds: str) -> float:
    """0.0 for what is no number, or one that is too long for a time."""
    is_number = microseconds.isdecimal() and len(microseconds) <= _MOST_DIGITS
    return int(microseconds) / 1e6 if is_number else 0.0
