"""Adoption: a new server takes over what another has left. Imported by `server.instance`.

First everything is found and looked at, which changes nothing, then what has happened meanwhile is
told, and what was under way is done again. In between `ready` is said: until then another server
may still go on in place of this one.
"""

import os

import msgspec

from sengu.errors import UsageError
from sengu.model import events as ev
from sengu.model.actions import StartWorker
from sengu.model.observed import Generation, Observed, Worker
from sengu.model.service import ServiceSpec
from sengu.posix.loop import Loop
from sengu.server.cgroups import generation_key
from sengu.server.children import Children
from sengu.server.crew import Crew
from sengu.server.execute import Executor
from sengu.server.groundwork import Groundwork
from sengu.server.link import Link
from sengu.server.member import worker_key
from sengu.server.notify import remark_of
from sengu.server.output import Relay
from sengu.server.stage import Stage

_GONE = "an unknown status, while no server was there"
_NOT_NEEDED = "no process: it was not needed any more"


class Parts(msgspec.Struct, frozen=True):
    """Who takes over."""

    loop: Loop
    link: Link
    children: Children
    stage: Stage
    crew: Crew
    groundwork: Groundwork
    hands: Executor


class Adoption:
    """Of one new server. Raises OSError when there is no room for all that there is."""

    def __init__(self, parts: Parts, spec: ServiceSpec, observed: Observed) -> None:
        self._parts = parts
        self._spec = spec
        self._lost: list[int] = []  # generations
        self._gone: list[Worker] = []
        self._missing: list[Worker] = []
        self._living = self._ended = 0
        self._generations = list(observed.generations)
        self._find_generations(observed)
        for worker in observed.workers.values():
            self._find_worker(worker)
        parts.crew.adopt_remnants()

    def finish(self) -> None:
        """Tell what has happened meanwhile, and repeat what may not have been done."""
        parts, post = self._parts, self._parts.crew.post
        killed = [key for key in parts.children.end_unwanted() if key.startswith(worker_key(""))]
        post(
            ev.ServerAdopted(
                os.getpid(), self._living, self._ended, len(killed), len(self._missing)
            )
        )
        for number in self._lost:
            post(ev.GenerationLost(number, "it was not there any more"))
        parts.groundwork.steps.go_on()
        for worker in self._gone:
            post(ev.WorkerExited(worker.id, _GONE))
        for worker in self._missing:
            if worker.is_wanted:
                action = StartWorker(worker.id, worker.generation, worker.slot, "asked for again")
                parts.hands.repeat(action)
            else:
                post(ev.WorkerExited(worker.id, _NOT_NEEDED))
        for number in self._generations:  # one before us may not have come to it
            parts.groundwork.configurations.tell(number)
        self._tidy()  # last: who is asked for again may have been forked, with what was there
        parts.stage.cgroups.clear_others(
            [*parts.children.keys(), *map(generation_key, self._generations)]
        )

    def _find_generations(self, observed: Observed) -> None:
        has_application = self._spec.application is not None
        for generation in observed.generations.values():
            self._parts.groundwork.steps.adopt(generation)
            is_there = self._find_environment(generation)
            if has_application:
                is_there = self._parts.groundwork.fork_servers.adopt(generation)
            if not is_there and (generation.prepared or generation.preparing_since is not None):
                self._lost.append(generation.number)

    def _find_environment(self, generation: Generation) -> bool:
        """Of a program's that never got into safe hands, nobody was started with it: it is read
        as it is now."""
        environments = self._parts.groundwork.environments
        if environments.adopt(generation.number):
            return True
        if self._spec.application is not None or not generation.prepared:
            return False
        try:
            environments.read(generation.number)
        except UsageError:  # then it has to be prepared anew, which tells people why it cannot
            return False
        return True

    def _find_worker(self, worker: Worker) -> None:
        children, key = self._parts.children, worker_key(worker.id)
        has_ended = children.has_ended(key)
        if self._parts.crew.adopt(worker):
            self._ended += has_ended
            self._living += not has_ended
        elif worker.pid:
            self._gone.append(worker)
        else:
            self._missing.append(worker)

    def _tidy(self) -> None:
        """Let go of what belongs to nobody, but for what may still be written to."""
        link, scoreboard = self._parts.link, self._parts.stage.scoreboard
        if scoreboard is not None:
            for line in lines_taken(link):
                scoreboard.give_back(line)
        for name in link.names("output/"):
            Relay(self._parts.loop, self._parts.stage.sink, link, name).start()
        for prefix in ("notify/", "socket/", "environment/"):
            for name in link.names(prefix):
                held = link.take(name)
                if held is not None:
                    os.close(held.fd)
                link.drop(name)


def lines_taken(link: Link) -> list[int]:
    """First lines on the scoreboard of workers that were there before us, and nobody has found."""
    remarks = [remark_of(link.note(name)).partition(" ")[0] for name in link.names("notify/")]
    return [int(line) for line in remarks if line.isdecimal()]
