"""The crew: the living processes behind the planner's workers, and all that belongs to each.

Starts them, or has them started, signals them, and turns what they say, and their death, into
facts.
"""

import contextlib
import select
import signal
from collections.abc import Iterator, Mapping

from sengu.model import events as ev
from sengu.model.actions import StartWorker
from sengu.model.service import ReadyByNotify, ReadyByProbe, ServiceSpec
from sengu.posix.loop import Loop
from sengu.posix.process import Children, Exec, Process
from sengu.server.core import Reporter
from sengu.server.environment import Identity, worker_environment
from sengu.server.forkservers import ForkServers, Letter
from sengu.server.member import Member, equip
from sengu.server.probe import Prober, http_request
from sengu.server.remnants import Remnants
from sengu.server.stage import Stage
from sengu.wire.forkserver import Fork
from sengu.wire.scoreboard import Line

_WORN = "X_SENGU_WORN"  # what a worker says that has served enough (worker.runtime)


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
        self._remnants = Remnants(loop, children)
        self.post = reporter.post
        self.warn = reporter.warn

    def start(self, action: StartWorker, base: dict[str, str]) -> int:
        """Start the worker's process and return its pid. Raises OSError; nothing is left then."""
        with contextlib.ExitStack() as undo:
            member = equip(self._loop, self._stage, action)
            undo.callback(member.abandon)
            process = self._children.spawn(self._order(member, base))
            undo.callback(self._children.discard, process)
            self._watch(member, process)
            undo.pop_all()
        member.start_relays()
        if isinstance(self._spec.boot.readiness, ReadyByProbe):
            self._probe(self._spec.boot.readiness, member)
        return process.pid

    def request(self, action: StartWorker, fork_servers: ForkServers) -> None:
        """Ask the generation's fork server for the worker. Raises OSError; nothing is left then."""
        scoreboard = self._stage.scoreboard
        assert scoreboard is not None
        with contextlib.ExitStack() as undo:
            member = equip(self._loop, self._stage, action)
            undo.callback(member.abandon)
            member.line = scoreboard.take()
            undo.callback(scoreboard.give_back, member.line)
            targets = tuple(member.relays)
            fork = Fork(action.worker, action.slot, member.notify.name, member.line, targets)
            passed = [member.relays[fd].write_end for fd in targets]
            letter = Letter(fork, passed, member.start_relays)
            fork_servers.order(action.generation, letter)
            undo.pop_all()
        self._members[action.worker] = member

    def born(self, worker: int, process: Process) -> None:
        """The fork server has made the process of a worker that was asked for."""
        self._children.adopt(process)
        member = self._members.get(worker)
        if member is None:  # it was given up meanwhile
            self._children.end(process)
            return
        try:
            self._watch(member, process)
        except OSError as error:
            self._children.end(process)
            self.not_born(worker, f"it cannot be watched: {error.strerror}")
            return
        action = member.action
        self.post(
            ev.WorkerStarted(worker, action.generation, action.slot, process.pid, action.reason)
        )
        if member.stop_signal:
            process.signal(member.stop_signal)

    def not_born(self, worker: int, problem: str) -> None:
        """There will be no process for a worker that was asked for."""
        member = self._members.get(worker)
        if member is not None:
            member.notify.close()
            words = member.last_words()
            self._forget(ev.WorkerExited(worker, f"no process: {problem}", words))

    def signal(self, worker: int, number: int) -> None:
        """Ask the worker to stop; whether it gets ready does not matter any more."""
        member = self._members[worker]
        member.stop_signal = number
        member.stop_probing()
        if member.process is None:  # it hears as soon as it is there
            return
        if member.exited is None:
            member.process.signal(number)
        else:
            self._children.signal_group(member.process, number)

    def signal_all(self, number: int) -> None:
        """Tell every living worker; they are not being stopped."""
        for member in self._members.values():
            if member.process is not None and member.exited is None:
                member.process.signal(number)

    def last_words(self, worker: int) -> str:
        """The end of what it has written to stderr so far."""
        return self._members[worker].last_words()

    def kill(self, worker: int) -> None:
        """KILL the worker and everything in its process group."""
        member = self._members[worker]
        member.stop_signal = signal.SIGKILL
        if member.process is not None:
            self._children.kill_group(member.process)
        # That it is gone is told after this has been, as it is for those who die of it.
        exited = member.exited
        if exited is not None:
            self._loop.call_at(self._loop.now(), lambda: self._forget(exited))
        elif member.process is None:
            self._loop.call_at(self._loop.now(), lambda: self._give_up(worker))

    def close(self) -> None:
        """The service has ended; so does what crashed workers have left behind."""
        self._remnants.kill()

    def problem_of(self, worker: int) -> str:
        """What a readiness probe has against it; empty when there is none."""
        prober = self._members[worker].prober
        return prober.last_problem if prober is not None else ""

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

    def _give_up(self, worker: int) -> None:
        """Do not wait for the birth of a worker any longer."""
        member = self._members.get(worker)
        if member is not None and member.process is not None:  # it has just come
            self._children.kill_group(member.process)
        elif member is not None:
            # The next preparation of the generation ends the fork server that hangs.
            self.post(ev.GenerationLost(member.action.generation, "it hangs"))
            self.not_born(worker, "its fork server did not make it in time")

    def _watch(self, member: Member, process: Process) -> None:
        """Take the new process in. Raises OSError when the kernel will not watch any more."""
        worker = member.action.worker
        member.process = process
        member.notify.start(process.pid, lambda message: self._hear(worker, message))
        self._loop.watch(process.pidfd, select.EPOLLIN, lambda: self._on_exit(worker))
        self._members[worker] = member

    def _order(self, member: Member, base: dict[str, str]) -> Exec:
        layout = self._stage.listeners.layout()
        descriptors = {
            0: self._stage.null_fd,
            1: 1,
            **{fd: relay.write_end for fd, relay in member.relays.items()},
            layout.next_fd: self._stage.lifeline_fd,
            **layout.descriptors,
        }
        identity = Identity(self._spec.name, member.action.generation, member.action.slot)
        return Exec(
            argv=self._spec.command,
            environment=worker_environment(
                base, identity, layout, member.notify.name, self._spec.watchdog_seconds
            ),
            descriptors=descriptors,
            directory=self._stage.directory,
            death_signal=self._spec.stop.signal,
            names_listen_pid="LISTEN_FDS" in layout.environment,
            file_limit=self._stage.file_limit,
        )

    def _probe(self, readiness: ReadyByProbe, member: Member) -> None:
        target = self._stage.probe_target
        assert target is not None  # the command line asks for a stream listener with a probe
        request = None if readiness.path is None else http_request(readiness.path)
        worker = member.action.worker

        def on_ready(reason: str) -> None:
            self.post(ev.WorkerReady(worker, reason))

        member.prober = Prober(self._loop, target, member.born.pid, request, on_ready)

    def _hear(self, worker: int, message: Mapping[str, str]) -> None:
        if message.get("READY") == "1" and isinstance(self._spec.boot.readiness, ReadyByNotify):
            self.post(ev.WorkerReady(worker, "said READY=1"))
        if "STATUS" in message:
            self.post(ev.WorkerSaid(worker, message["STATUS"]))
        if message.get("WATCHDOG") == "1":
            self.post(ev.WorkerBeat(worker))
        if _WORN in message and self._spec.application is not None:
            self.post(ev.WorkerWorn(worker, message[_WORN]))

    def _on_exit(self, worker: int) -> None:
        member = self._members[worker]
        process = member.born
        how = self._children.exit_of(process)
        if how is None:  # a pidfd polls readable a moment before the status can be had
            return
        member.notify.drain()
        member.exited = exited = ev.WorkerExited(worker, how, member.last_words())
        member.stop_probing()
        self._loop.unwatch(process.pidfd)
        process.close()
        member.notify.close()
        if member.stop_signal == signal.SIGKILL or not self._children.has_group(process):
            self._forget(exited)
        elif member.stop_signal:
            # A shell does not pass on what it is asked, and leaves the program it ran.
            self._children.await_group(process, lambda: self._forget(exited))
            self._children.signal_group(process, member.stop_signal)
        else:
            self._forget(exited)
            self._remnants.end(process, self._spec.stop)

    def _forget(self, exited: ev.WorkerExited) -> None:
        member = self._members.pop(exited.worker)
        if member.line is not None and self._stage.scoreboard is not None:
            self._stage.scoreboard.give_back(member.line)
        self.post(exited)
