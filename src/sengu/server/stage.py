"""The stage: what all workers of all generations share, and what therefore must outlive them."""

import functools
import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from sengu.listeners.listeners import Layout, Listeners
from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.observed import Observed
from sengu.model.passage import PassageStatus
from sengu.posix.store import Store
from sengu.server.cgroups import WorkerCgroups
from sengu.server.obituaries import Obituaries
from sengu.server.output import Sink
from sengu.server.probe import Target, probe_target
from sengu.server.scoreboard import Scoreboard
from sengu.server.socket_manager import SocketManager
from sengu.wire.sockets import VARIABLE


class Passage(Protocol):
    """Leads connections from old workers to new ones, where they have sockets of their own."""

    def begin(self) -> None:
        """To be called before the first worker, by the first server. Raises OSError."""

    def follow(self, observed: Observed) -> None:
        """To be called when facts have had their consequences, before these leave the server."""

    def problem_of(self, worker: int) -> str:
        """What a worker that does not get ready lacks; empty if that is not a socket."""

    def statuses(self) -> tuple[PassageStatus, ...]:
        """What people are told of each address."""


class Stage:
    """Listeners, cgroups, lifeline, output, working directory; an application's scoreboard, and
    its obituaries, if it wants them.

    `captured` are the descriptors of a worker that go through us: stderr, for a failed
    deploy's last words; stdout only when it goes to a log file, which may be reopened.
    """

    def __init__(
        self,
        store: Store,
        listeners: Listeners,
        sink: Sink,
        directory: str | None,
        cgroups: WorkerCgroups,
    ) -> None:
        """Raises OSError."""
        self.store = store
        self.listeners = listeners
        self.sink = sink
        self.directory = directory
        self.cgroups = cgroups
        self.captured: tuple[int, ...] = (2,)
        self.scoreboard: Scoreboard | None = None
        self.obituaries: Obituaries | None = None
        self.passage: Passage | None = None
        self.sockets: SocketManager | None = None
        self.null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.lifeline_fd = _hold_lifeline(store)

    def share_memory(
        self, application: Application, taken: Iterable[int], observed: Callable[[], Observed]
    ) -> None:
        """With the workers of an application. Some there already are have the first lines `taken`.

        Raises OSError.
        """
        self.scoreboard = Scoreboard(application.lanes, self.store)
        self.scoreboard.claim(taken)
        if application.reads_obituaries:
            self.obituaries = Obituaries(self.store, observed)

    def bury(self, exited: ev.WorkerExited, line: int | None, *, was_asked: bool) -> None:
        """Note how a worker has ended, before that is told; `line`: its first on the scoreboard."""
        if line is not None and self.scoreboard is not None and self.obituaries is not None:
            self.obituaries.write(exited, self.scoreboard.read(line), was_asked=was_asked)

    def give_back(self, line: int | None) -> None:
        """The worker is gone that had this as its first line on the scoreboard."""
        if line is not None and self.scoreboard is not None:
            self.scoreboard.give_back(line)

    def layout(self, slot: int = 0) -> Layout:
        """What a worker in that slot gets. Raises UsageError if its sockets cannot be bound."""
        layout = self.listeners.layout(slot)
        if self.sockets is None:
            return layout
        environment = {**layout.environment, VARIABLE: self.sockets.name}
        return msgspec.structs.replace(layout, environment=environment)

    def probe_target(self, slot: int) -> Target | None:
        """Where a readiness probe of a worker in that slot connects: the first listener that takes
        connections."""
        for listener in self.listeners:
            if listener.socket.type == socket.SOCK_STREAM:
                target, slots = probe_target(listener.socket), listener.slots
                if slots is None:
                    return target
                return target._replace(lead=functools.partial(slots.lead, slot))
        return None


def _hold_lifeline(store: Store) -> int:
    """Workers get the read end; nobody writes.

    When all holders of the write end are gone, which are the supervisor and us, they see EOF.
    """
    read_end, write_end = store.take("lifeline/read"), store.take("lifeline/write")
    if read_end is not None and write_end is not None:
        return read_end.fd
    made, kept = os.pipe2(os.O_CLOEXEC)
    store.hold("lifeline/read", made)
    store.hold("lifeline/write", kept)  # and our own is open as long as we are
    return made
