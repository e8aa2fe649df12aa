"""The passage of a service whose programs bind their addresses themselves.

Follows what the planner wants (`follow`), looks at who listens, and tells what it has found: that a
worker listens where it should, that the queues of one that is to go are empty. Between facts it
looks by a timer, as the kernel does not tell when somebody begins to listen or a queue has run dry;
at rest it does not look at all. Imported by `server.instance`.
"""

from collections.abc import Callable, Mapping

import msgspec

from sengu.model import events as ev
from sengu.model.address import SelfBound
from sengu.model.observed import Observed, Phase
from sengu.model.passage import PassageStatus
from sengu.passage.crossing import Crossing, Scene
from sengu.passage.group import Group, Look, Processes
from sengu.passage.ladder import Ladder, turn_migration_on
from sengu.posix.loop import Loop, Timer
from sengu.posix.store import Store

_DRAINING_SECONDS = 0.005  # between two looks
_MOVING_SECONDS = 0.02
_UNHURRIED_SECONDS = 0.2  # when those who are to go take their time, or are given it
_HURRIES_FOR_SECONDS = 2.0
_STARTING_SECONDS = 0.05

Looks = Mapping[Crossing, Look]
Found = ev.WorkerReady | ev.WorkerDrained


class Tell(msgspec.Struct, frozen=True):
    """Who is told: facts for the planner, lines for people."""

    post: Callable[[Found], None]
    write: Callable[[str], None]
    warn: Callable[[str], None]


class Joined(msgspec.Struct, frozen=True):
    """So many sockets of a worker listen, since that moment (monotonic)."""

    sockets: int
    since: float


class SelfPassage:
    """All crossings of the service, one for each address."""

    def __init__(
        self, loop: Loop, store: Store, processes: Processes, bound: SelfBound, tell: Tell
    ) -> None:
        self._loop = loop
        self._processes = processes
        self._bound = bound
        self._tell = tell
        self._crossings = [
            Crossing(group, Ladder(loop, group, store, bound.technique), tell.write, tell.warn)
            for group in (Group(address, processes) for address in bound.addresses)
        ]
        self._scene = Scene()
        self._scene_since = 0.0
        self._joined: dict[int, Joined] = {}
        self._told: set[tuple[type[Found], int]] = set()  # of which worker
        self._timer: Timer | None = None
        self._problem = ""
        self._has_complained = False

    def begin(self) -> None:
        """Before the first worker: see who is there already. Raises OSError."""
        if self._bound.sets_sysctl:
            turn_migration_on()
            self._tell.write("net.ipv4.tcp_migrate_req is 1 now")
        for crossing in self._crossings:
            strangers = crossing.group.meet_strangers()
            if strangers:
                self._tell.warn(
                    f"somebody else listens on {crossing.group.address} already, and gets "
                    "connections until it ends"
                )

    def follow(self, observed: Observed) -> None:
        """To be called when facts have had their consequences, before these leave the server."""
        now = self._loop.now()
        scene = _read(observed, now)
        if scene != self._scene:
            self._scene, self._scene_since = scene, now
        elif self._timer is not None:
            return  # it looks anyhow: what else makes the loop turn is no reason to
        self._step()

    def problem_of(self, worker: int) -> str:
        """What a worker that does not get ready lacks; empty if that is not a socket."""
        if worker not in self._scene.starting or worker in self._joined:
            return ""
        wanted = ", ".join(str(crossing.group.address) for crossing in self._crossings)
        try:
            found = self._crossings[0].group.elsewhere(worker)
        except OSError as error:  # as whoever looks for it is told (`_complain`)
            return f"nobody can see whether it listens on {wanted}: {error.strerror or error}"
        where = f"but on {found}" if found else "nor anywhere else that can be seen"
        return f"it does not listen on {wanted}, {where}"

    def statuses(self) -> tuple[PassageStatus, ...]:
        return tuple(crossing.status() for crossing in self._crossings)

    def _step(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pause = self._pause()
        if pause is None:
            return
        try:
            self._look()
        except OSError as error:  # a process has gone meanwhile, or nobody answers: look again
            self._complain(f"cannot see who listens: {error.strerror or error}")
        pause = self._pause()
        if pause is not None:
            self._timer = self._loop.call_at(self._loop.now() + pause, self._step)

    def _pause(self) -> float | None:
        """How long until the next look; None when nothing is waited for."""
        scene = self._scene
        if scene.leaving:
            return _DRAINING_SECONDS
        if scene.is_moving or any(crossing.is_busy for crossing in self._crossings):
            is_urgent = self._loop.now() < self._scene_since + _HURRIES_FOR_SECONDS
            return _MOVING_SECONDS if is_urgent else _UNHURRIED_SECONDS
        is_known = all(crossing.choice is not None for crossing in self._crossings)
        if scene.starting or (scene.chosen and not is_known):
            return _STARTING_SECONDS
        return None

    def _look(self) -> None:
        scene, now = self._scene, self._loop.now()
        self._told &= {(ev.WorkerReady, worker) for worker in scene.starting} | {
            (ev.WorkerDrained, worker) for worker in scene.leaving
        }
        looks = {
            crossing: crossing.group.look(scene.living, scene.newest)
            for crossing in self._crossings
        }
        for crossing, look in looks.items():
            crossing.follow(scene, look, now)
        self._tell_ready(looks)
        if scene.leaving:
            first, *others = (one.verdicts(scene, look, now) for one, look in looks.items())
            for worker, verdict in first.items():
                if all(worker in other for other in others):
                    self._post(ev.WorkerDrained(worker, verdict))
        self._problem = ""

    def _tell_ready(self, looks: Looks) -> None:
        scene, now = self._scene, self._loop.now()
        self._joined = {w: seen for w, seen in self._joined.items() if w in scene.starting}
        for worker in scene.starting:
            counts = [len(look.of([worker])) for look in looks.values()]
            if not all(counts):
                continue
            seen = self._joined.get(worker)
            if seen is None or seen.sockets != sum(counts):
                seen = self._joined[worker] = Joined(sum(counts), now)
            is_settled = now >= seen.since + self._bound.settle_seconds
            if is_settled and (not self._bound.says_ready or self._processes.said_ready(worker)):
                self._post(ev.WorkerReady(worker, self._in_words(seen)))

    def _post(self, fact: Found) -> None:
        """Once, and with the next round of the loop: in this one it would wait for another."""
        told = type(fact), fact.worker
        if told not in self._told:
            self._told.add(told)
            self._loop.call_at(self._loop.now(), lambda: self._tell.post(fact))

    def _in_words(self, joined: Joined) -> str:
        where = ", ".join(str(crossing.group.address) for crossing in self._crossings)
        return f"listens on {where}" + (
            f" with {joined.sockets} sockets" if joined.sockets > len(self._crossings) else ""
        )

    def _complain(self, problem: str) -> None:
        """Once for each problem that does not pass by itself, as when somebody has just exited."""
        if problem == self._problem and not self._has_complained:
            self._tell.warn(problem)
        self._has_complained = problem == self._problem
        self._problem = problem


def _read(observed: Observed, now: float) -> Scene:
    stop = observed.stop
    if stop is not None and (stop.lame_until is None or now >= stop.lame_until):
        return Scene()  # nobody takes over
    workers = [worker for worker in observed.workers.values() if worker.pid]
    is_anybody_unborn = len(workers) < len(observed.workers)  # and may listen before it is known
    current, deploy = observed.current, observed.deploy
    is_deploying = deploy is not None and current > 0
    wanted = [w.id for w in workers if w.is_wanted]
    return Scene(
        chosen=[w.id for w in workers if w.phase is Phase.READY and w.generation == current],
        leaving=[w.id for w in workers if w.phase is Phase.DRAINING and not w.drained],
        starting=[w.id for w in workers if w.phase is Phase.STARTING],
        living=[w.id for w in workers],
        newest=None if is_anybody_unborn else max(wanted, default=None),
        is_moving=is_deploying or any(w.generation != current or not w.is_wanted for w in workers),
        deploy=deploy.generation if deploy is not None and is_deploying else 0,
    )
