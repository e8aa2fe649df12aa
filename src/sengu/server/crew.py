"""The crew: the living processes behind the planner's workers, and all that belongs to each.

Starts them, signals them, and turns what they say, and their death, into facts.
"""

import contextlib
import select
import signal
from collections.abc import Callable, Mapping

from sengu.model import events as ev
from sengu.model.actions import StartWorker
from sengu.model.service import ReadyByNotify, ReadyByProbe, ServiceSpec, StopPolicy
from sengu.planner.reduce import Fact
from sengu.posix.loop import Loop
from sengu.posix.process import Children, Exec, Process
from sengu.server.environment import Identity, worker_environment
from sengu.server.notify import NotifySocket
from sengu.server.output import Relay
from sengu.server.probe import Prober, http_request
from sengu.server.remnants import Remnants
from sengu.server.stage import Stage


class Member:
    """One worker's process, sockets and pipes.

    `stop_signal` is what it was asked to stop with, 0 when it was not. With `exited` set, what is
    left of it is its process group, which has been asked too.
    """

    __slots__ = ("exited", "notify", "prober", "process", "relays", "stop_signal")

    def __init__(self, process: Process, notify: NotifySocket, relays: Mapping[int, Relay]) -> None:
        self.process = process
        self.notify = notify
        self.relays = relays
        self.prober: Prober | None = None
        self.stop_signal = 0
        self.exited: ev.WorkerExited | None = None

    def last_words(self) -> str:
        return self.relays[2].last_words()

    def stop_probing(self) -> None:
        if self.prober is not None:
            self.prober.cancel()
            self.prober = None


class Crew:
    """All workers' processes by worker id. Facts go to `post`."""

    def __init__(
        self, loop: Loop, children: Children, stage: Stage, post: Callable[[Fact], None]
    ) -> None:
        self._loop = loop
        self._children = children
        self._stage = stage
        self._post = post
        self._members: dict[int, Member] = {}
        self._remnants = Remnants(loop, children)

    def start(self, spec: ServiceSpec, action: StartWorker, base: dict[str, str]) -> int:
        """Start the worker's process and return its pid. Raises OSError; nothing is left then."""
        with contextlib.ExitStack() as undo:
            notify = NotifySocket(self._loop, str(action.worker))
            undo.callback(notify.close)
            relays: dict[int, Relay] = {}
            for fd in self._stage.captured:
                relays[fd] = Relay(self._loop, self._stage.sink)
                undo.callback(relays[fd].abandon)
            process = self._children.spawn(self._order(spec, action, base, notify, relays))
            undo.callback(self._children.discard, process)
            self._watch(spec, action.worker, Member(process, notify, relays))
            undo.pop_all()
        member = self._members[action.worker]
        if isinstance(spec.boot.readiness, ReadyByProbe):
            self._probe(spec.boot.readiness, action.worker, member)
        return process.pid

    def _watch(self, spec: ServiceSpec, worker: int, member: Member) -> None:
        """Take the new process in. Raises OSError when the kernel will not watch any more."""
        process = member.process
        member.notify.start(process.pid, lambda message: self._hear(spec, worker, message))
        for relay in member.relays.values():
            relay.start()
        self._loop.watch(process.pidfd, select.EPOLLIN, lambda: self._on_exit(worker, spec.stop))
        self._members[worker] = member

    def signal(self, worker: int, number: int) -> None:
        """Ask the worker to stop; whether it gets ready does not matter any more."""
        member = self._members[worker]
        member.stop_signal = number
        if member.exited is None:
            member.process.signal(number)
        else:
            self._children.signal_group(member.process, number)
        member.stop_probing()

    def last_words(self, worker: int) -> str:
        """The end of what it has written to stderr so far."""
        return self._members[worker].last_words()

    def kill(self, worker: int) -> None:
        """KILL the worker and everything in its process group."""
        member = self._members[worker]
        member.stop_signal = signal.SIGKILL
        self._children.kill_group(member.process)
        exited = member.exited
        if exited is not None:  # after this has been told, as it is for any other
            self._loop.call_at(self._loop.now(), lambda: self._forget(exited))

    def close(self) -> None:
        """The service has ended; so does what crashed workers have left behind."""
        self._remnants.kill()

    def problem_of(self, worker: int) -> str:
        """What a readiness probe has against it; empty when there is none."""
        prober = self._members[worker].prober
        return prober.last_problem if prober is not None else ""

    def _order(
        self,
        spec: ServiceSpec,
        action: StartWorker,
        base: dict[str, str],
        notify: NotifySocket,
        relays: Mapping[int, Relay],
    ) -> Exec:
        layout = self._stage.listeners.layout()
        descriptors = {
            0: self._stage.null_fd,
            1: 1,
            **{fd: relay.write_end for fd, relay in relays.items()},
            layout.next_fd: self._stage.lifeline_fd,
            **layout.descriptors,
        }
        identity = Identity(spec.name, action.generation, action.slot)
        return Exec(
            argv=spec.command,
            environment=worker_environment(
                base, identity, layout, notify.name, spec.watchdog_seconds
            ),
            descriptors=descriptors,
            directory=self._stage.directory,
            death_signal=spec.stop.signal,
            names_listen_pid="LISTEN_FDS" in layout.environment,
        )

    def _probe(self, readiness: ReadyByProbe, worker: int, member: Member) -> None:
        target = self._stage.probe_target
        assert target is not None  # the command line asks for a stream listener with a probe
        request = None if readiness.path is None else http_request(readiness.path)

        def on_ready(reason: str) -> None:
            self._post(ev.WorkerReady(worker, reason))

        member.prober = Prober(self._loop, target, member.process.pid, request, on_ready)

    def _hear(self, spec: ServiceSpec, worker: int, message: Mapping[str, str]) -> None:
        if message.get("READY") == "1" and isinstance(spec.boot.readiness, ReadyByNotify):
            self._post(ev.WorkerReady(worker, "said READY=1"))
        if "STATUS" in message:
            self._post(ev.WorkerSaid(worker, message["STATUS"]))
        if message.get("WATCHDOG") == "1":
            self._post(ev.WorkerBeat(worker))

    def _on_exit(self, worker: int, stop: StopPolicy) -> None:
        member = self._members[worker]
        how = self._children.exit_of(member.process)
        if how is None:  # a pidfd polls readable a moment before the status can be had
            return
        member.notify.drain()
        member.exited = exited = ev.WorkerExited(worker, how, member.last_words())
        member.stop_probing()
        self._loop.unwatch(member.process.pidfd)
        member.process.close()
        member.notify.close()
        if member.stop_signal == signal.SIGKILL or not self._children.has_group(member.process):
            self._forget(exited)
        elif member.stop_signal:
            # A shell does not pass on what it is asked, and leaves the program it ran.
            self._children.await_group(member.process, lambda: self._forget(exited))
            self._children.signal_group(member.process, member.stop_signal)
        else:
            self._forget(exited)
            self._remnants.end(member.process, stop)

    def _forget(self, exited: ev.WorkerExited) -> None:
        del self._members[exited.worker]
        self._post(exited)
