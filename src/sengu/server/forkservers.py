"""Fork servers, one for each generation of an application: started, ordered from, ended.

What they report becomes facts, or is passed to the crew when it concerns a worker.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.service import Pacing
from sengu.posix import packets
from sengu.posix.loop import Loop
from sengu.posix.process import Children, Exec, Process
from sengu.posix.title import ROOM
from sengu.server.core import Reporter
from sengu.server.environment import generation_environment
from sengu.server.member import capture
from sengu.server.output import Relay
from sengu.server.stage import Stage
from sengu.wire import forkserver as wire

_MESSAGES_AT_ONCE = 1024  # more than wait at a time: a socket's buffer holds fewer


class Ears(Reporter, Protocol):
    """Who is told what a fork server has to say: the crew."""

    def born(self, worker: int, process: Process) -> None: ...
    def not_born(self, worker: int, problem: str) -> None: ...


class Plan(msgspec.Struct, frozen=True):
    """What a generation's fork server is made from."""

    service: str
    generation: int
    application: Application
    environment: dict[str, str]
    pacing: Pacing


class Letter(msgspec.Struct, frozen=True):
    """An order to be sent. `sent` is called when its descriptors are on their way."""

    fork: wire.Fork
    descriptors: Sequence[int]
    sent: Callable[[], None]


class ForkServer:
    """The fork server of one generation. Raises OSError when none can be started."""

    def __init__(
        self, loop: Loop, children: Children, stage: Stage, ears: Ears, plan: Plan
    ) -> None:
        self._loop = loop
        self._children = children
        self._ears = ears
        self._plan = plan
        self._letters: deque[Letter] = deque()
        self._orders: set[int] = set()  # workers asked for and not reported yet
        self._is_loaded = False
        self._has_failed = False
        self._has_exited = False
        with contextlib.ExitStack() as undo:
            self._relays = capture(loop, stage)
            for relay in self._relays.values():
                undo.callback(relay.abandon)
            self._socket, theirs = packets.pair()
            undo.callback(self._socket.close)
            with theirs:
                self._process = children.spawn(_exec(stage, plan, theirs.fileno(), self._relays))
            undo.pop_all()
        for relay in self._relays.values():
            relay.start()
        self._socket.setblocking(False)
        self._loop.watch(self._process.pidfd, select.EPOLLIN, self._on_exit)
        self._watch()
        scoreboard = stage.scoreboard
        assert scoreboard is not None  # there is one as soon as there is an application
        load = wire.Load(plan.application, plan.service, plan.generation)
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which will be told
            packets.send(self._socket, wire.encode(load), (scoreboard.fd,))

    @property
    def is_heard(self) -> bool:
        """Whether it, or a process in between, may still tell of births."""
        return self._socket.fileno() >= 0

    @property
    def is_gone(self) -> bool:
        return self._has_exited and not self.is_heard

    def order(self, letter: Letter) -> None:
        """Ask for a worker; `Ears` hear of its birth, or of why it was not born."""
        self._orders.add(letter.fork.worker)
        if not self.is_heard:  # it is about to end, and that is told first
            letter.sent()
            return
        # Sent by the loop: so that many orders of one plan are one batch at the other end.
        self._letters.append(letter)
        self._watch()

    def end(self) -> None:
        """It is not needed any more; its workers live on. Who was asked for is not waited for."""
        if self._is_loaded and self.is_heard:
            # Who is born from now on can not be told of, and is killed for that where it is born.
            self._socket.shutdown(socket.SHUT_RD)
            self.hear()
        self._close_socket()
        if not self._has_exited:
            self._loop.unwatch(self._process.pidfd)
            self._children.end(self._process)
            self._has_exited = True
            self._tell_unborn()

    def last_words(self) -> str:
        return self._relays[2].last_words()

    def hear(self) -> None:
        """Take in what it has sent."""
        for _ in range(_MESSAGES_AT_ONCE):
            if not self.is_heard:
                return
            try:
                data, descriptors = packets.receive(self._socket)
            except BlockingIOError:
                return
            except OSError:  # the socket is broken: as good as closed
                data, descriptors = b"", []
            if not data:
                self._close_socket()
                return
            self._take(wire.decode_report(data), descriptors)

    def _take(self, report: wire.FromForkServer, descriptors: Sequence[int]) -> None:
        number = self._plan.generation
        match report:
            case wire.Loaded():
                self._is_loaded = True
                for line in report.warnings:
                    self._ears.warn(line)
                self._ears.post(ev.GenerationPrepared(number, self._plan.pacing))
            case wire.LoadFailed():
                self._has_failed = True
                self._ears.post(ev.GenerationFailed(number, report.problem, report.details))
            case wire.Forked():
                self._orders.discard(report.worker)
                self._take_birth(report, descriptors)
            case wire.ForkFailed():
                self._orders.discard(report.worker)
                self._ears.not_born(report.worker, report.problem)

    def _take_birth(self, report: wire.Forked, descriptors: Sequence[int]) -> None:
        if descriptors:
            self._ears.born(report.worker, Process(report.pid, *descriptors))
            return
        # We could open no more (MSG_CTRUNC in recvmsg(2)): one that nobody watches is worse than
        # none. Only we could have reaped it, and do not before we have heard of it.
        with contextlib.suppress(ProcessLookupError):  # it is what we are just reaping
            os.kill(report.pid, signal.SIGKILL)
        self._ears.not_born(report.worker, "too many open files to watch it")

    def _send(self) -> None:
        while self._letters and self.is_heard:
            letter = self._letters[0]
            try:
                packets.send(self._socket, wire.encode(letter.fork), letter.descriptors)
            except BlockingIOError:  # it is busy with those before
                break
            except OSError as error:
                self._letters.popleft()
                letter.sent()
                self._orders.discard(letter.fork.worker)
                self._ears.not_born(letter.fork.worker, f"the fork server: {error.strerror}")
                continue
            self._letters.popleft()
            letter.sent()
        self._watch()

    def _watch(self) -> None:
        if not self.is_heard:
            return
        events = select.EPOLLIN | (select.EPOLLOUT if self._letters else 0)
        self._loop.watch(self._socket.fileno(), events, self._on_ready)

    def _on_ready(self) -> None:
        self.hear()
        if self._letters:
            self._send()

    def _close_socket(self) -> None:
        """No birth will be told of any more."""
        if not self.is_heard:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for letter in self._letters:
            letter.sent()
        self._letters.clear()
        self._tell_unborn()

    def _tell_unborn(self) -> None:
        """Not before it was told what has become of us: or they would be asked for again, of us."""
        if not self.is_gone:
            return
        for worker in sorted(self._orders):
            self._ears.not_born(worker, "its fork server ended")
        self._orders.clear()

    def _on_exit(self) -> None:
        how = self._children.exit_of(self._process)
        if how is None:  # a pidfd polls readable a moment before the status can be had
            return
        self.hear()
        self._has_exited = True
        self._loop.unwatch(self._process.pidfd)
        self._process.close()
        number = self._plan.generation
        if self._is_loaded:
            self._ears.post(ev.GenerationLost(number, f"it ended with {how}"))
        elif not self._has_failed:
            problem = f"the fork server ended with {how} while it loaded the application"
            self._ears.post(ev.GenerationFailed(number, problem, self.last_words()))
        self._tell_unborn()


class ForkServers:
    """All of them, by generation."""

    def __init__(self, loop: Loop, children: Children, stage: Stage, ears: Ears) -> None:
        self._loop = loop
        self._children = children
        self._stage = stage
        self._ears = ears
        self._all: dict[int, ForkServer] = {}
        children.on_stranger = self._hear_all

    def start(self, plan: Plan) -> None:
        """Start the fork server of a generation; facts tell when it has loaded. Raises OSError."""
        self.end(plan.generation)
        self._all[plan.generation] = ForkServer(
            self._loop, self._children, self._stage, self._ears, plan
        )

    def order(self, generation: int, letter: Letter) -> None:
        """Raises OSError when there is nobody to ask."""
        server = self._all.get(generation)
        if server is None or server.is_gone:
            raise OSError(None, "the fork server is gone")
        server.order(letter)

    def end(self, generation: int) -> str:
        """End the one of this generation, if there is one; returns its last words."""
        server = self._all.pop(generation, None)
        if server is None:
            return ""
        words = server.last_words()
        server.end()
        return words

    def close(self) -> None:
        for generation in list(self._all):
            self.end(generation)

    def _hear_all(self) -> None:
        for server in list(self._all.values()):
            server.hear()


def _exec(stage: Stage, plan: Plan, socket_fd: int, relays: Mapping[int, Relay]) -> Exec:
    layout = stage.listeners.layout()
    own = layout.next_fd + 1
    environment = generation_environment(plan.environment, plan.service, plan.generation, layout)
    return Exec(
        argv=(sys.executable, "-P", "-m", "sengu.forkserver", str(own), ROOM),
        environment=environment,
        descriptors={
            0: stage.null_fd,
            1: 1,
            **{fd: relay.write_end for fd, relay in relays.items()},
            **layout.descriptors,
            layout.next_fd: stage.lifeline_fd,
            own: socket_fd,
        },
        directory=stage.directory,
        # It holds nothing that could be lost, and may be in the middle of the application's code.
        death_signal=signal.SIGKILL,
        names_listen_pid="LISTEN_FDS" in layout.environment,
    )
