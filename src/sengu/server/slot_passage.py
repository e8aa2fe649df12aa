"""The passage where each slot has sockets of its own (`--reuseport`): who gets new clients, when a
queue is empty, and which sockets are not needed any more.

Follows what is observed and compares it with what is, so whoever takes over goes on with the same
lines. A slot is open when it has a ready worker. Clients are never led to one that is not, as they
would wait in its queue for a worker that may not come; only when none is open, they wait for all
that are wanted. Imported by `server.instance`.
"""

import functools
import socket
from collections.abc import Iterator, Sequence

from sengu.errors import describe_error
from sengu.listeners.listeners import Listeners
from sengu.listeners.slots import Slots
from sengu.model import events as ev
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.passage import PassageStatus
from sengu.passage.relay import begin_to_connect, pass_on
from sengu.posix.listening import Peer
from sengu.posix.loop import Loop, Timer
from sengu.server.core import Reporter
from sengu.server.probe import Target, probe_target

_LOOK_SECONDS = 0.01
_CALM_LOOKS = 3  # what was on its way to the queue when it was closed has arrived by then
_UNHURRIED_LOOK_SECONDS = 0.1  # nobody waits for it but a socket that is not needed


class Handshakes:
    """Who is in the midst of one with any slot of a listener, at one moment.

    The kernel looks through all connections of the machine to tell, so it is asked once, and only
    if somebody wants to know.
    """

    def __init__(self, groups: Sequence[Slots]) -> None:
        self._groups = groups
        self._found: dict[int, frozenset[Peer]] = {}

    def of(self, number: int) -> frozenset[Peer]:
        if number not in self._found:
            try:
                self._found[number] = self._groups[number].half_open()
            except OSError:  # a kernel without tcp_diag: then the looks have to do
                self._found[number] = frozenset()
        return self._found[number]


class QueueVigil:
    """Watches the queues of a slot that gets nobody new any more, until they stay empty."""

    def __init__(self, groups: Sequence[Slots], slot: int, now: Handshakes) -> None:
        self._groups = groups
        self._slot = slot
        # Any of these may belong to another slot; the kernel does not tell to which.
        self._half_open = [now.of(number) for number in range(len(groups))]
        self._calm = 0

    def look(self, now: Handshakes) -> bool:
        """Whether it is over."""
        waiting = [group for group in self._groups if not group.is_empty(self._slot)]
        for number, peers in enumerate(self._half_open):
            if peers:
                self._half_open[number] = peers & now.of(number)
        self._calm = 0 if waiting or any(self._half_open) else self._calm + 1
        return self._calm >= _CALM_LOOKS


class SlotPassage:
    """Of all listeners that have a socket for each slot."""

    def __init__(self, loop: Loop, listeners: Listeners, reporter: Reporter) -> None:
        self._loop = loop
        self._groups = listeners.groups()
        self._post = reporter.post
        self._warn = reporter.warn
        self._chosen = [frozenset[int]() for _ in self._groups]
        self._vigils: dict[int, QueueVigil] = {}
        self._timer: Timer | None = None
        self._has_warned = False

    def begin(self) -> None:
        """Nothing: the listeners are there."""

    def follow(self, observed: Observed) -> None:
        """Lead new clients as it is right now, and look after those who wait."""
        self._observed = observed
        ready = _ready(observed)
        for slot in ready & self._vigils.keys():
            del self._vigils[slot]
        for number, group in enumerate(self._groups):
            self._choose(number, group, ready or frozenset(range(_wanted(observed))))
        if self._timer is not None:
            return  # it looks anyhow, and soon
        if any(_draining(observed)):
            self._look_at(self._loop.now())
        elif self._count() > _needed(observed):
            self._look_at(self._loop.now() + _LOOK_SECONDS)

    def problem_of(self, worker: int) -> str:
        """Nothing: its sockets are there before it is."""
        return ""

    def statuses(self) -> tuple[PassageStatus, ...]:
        """None: the listeners tell all."""
        return ()

    def _choose(self, number: int, group: Slots, slots: frozenset[int]) -> None:
        there = frozenset(slot for slot in slots if slot < len(group)) or frozenset({0})
        if there == self._chosen[number]:
            return
        try:
            group.choose(there)
        except OSError as error:  # seccomp, or more pieces than a program has room for
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"clients cannot be steered ({describe_error(error)}): they go to all sockets, "
                    "also to those whose worker is not ready, and wait there"
                )
        self._chosen[number] = there

    def _look_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now = Handshakes(self._groups)
        is_waited_for = [self._drain(worker, now) for worker in _draining(self._observed)]
        is_surplus = self._close_surplus(now)
        if any(is_waited_for):
            self._look_at(self._loop.now() + _LOOK_SECONDS)
        elif is_surplus:
            self._look_at(self._loop.now() + _UNHURRIED_LOOK_SECONDS)

    def _drain(self, worker: Worker, now: Handshakes) -> bool:
        """Tell when nobody waits for the worker any more; whether somebody may."""
        ready = _ready(self._observed)
        if worker.slot in ready:
            how = "another serves those who wait in its slot"
        elif not ready:
            how = "nobody serves but those that are to go"
        elif self._is_calm(worker.slot, now):
            how = "nobody waits for it any more"
        else:
            return True
        self._post(ev.WorkerDrained(worker.id, how))
        return False

    def _close_surplus(self, now: Handshakes) -> bool:
        """Close sockets from the last one down to those that are needed; whether any are left."""
        needed, ready = _needed(self._observed), _ready(self._observed)
        is_calm = {slot: self._is_calm(slot, now) for slot in range(needed, self._count())}
        for slot in reversed(is_calm):
            if not is_calm[slot]:
                if ready:
                    self._serve_leftovers(slot)
                return True
            del self._vigils[slot]
            for group in self._groups:
                if len(group) > slot:
                    group.close_last()
        return False

    def _serve_leftovers(self, slot: int) -> None:
        """Its worker was killed, and there will be no other: pass on who still waits there."""
        for group in self._groups:
            if group.is_empty(slot):
                continue
            sock = group.of(slot)
            if sock.type == socket.SOCK_STREAM:
                pass_on(self._loop, sock, functools.partial(_connect, probe_target(sock)))
            else:  # nobody could answer them from this address
                group.discard(slot)

    def _is_calm(self, slot: int, now: Handshakes) -> bool:
        if slot not in self._vigils:
            self._vigils[slot] = QueueVigil(self._groups, slot, now)
        return self._vigils[slot].look(now)

    def _count(self) -> int:
        """How many slots have sockets."""
        return max(map(len, self._groups), default=0)


def _ready(observed: Observed) -> frozenset[int]:
    return frozenset(w.slot for w in observed.workers.values() if w.phase is Phase.READY)


def _draining(observed: Observed) -> Iterator[Worker]:
    for worker in observed.workers.values():
        if worker.phase is Phase.DRAINING and not worker.drained:
            yield worker


def _wanted(observed: Observed) -> int:
    """For so many slots clients wait when nobody serves; a service that rests keeps its sockets."""
    rested = observed.rested_from
    return max(observed.wanted if rested is None else rested, 1)


def _needed(observed: Observed) -> int:
    """The last slot that is wanted, or lived in, and all before it."""
    inhabited = (worker.slot + 1 for worker in observed.workers.values())
    return max(_wanted(observed), *inhabited, 1)


def _connect(target: Target) -> socket.socket:
    """A socket that is being connected. Raises OSError."""
    return begin_to_connect(socket.socket(target.family, socket.SOCK_STREAM), target.address)
