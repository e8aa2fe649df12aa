"""What happened, written down as it is told: requests, deploys, workers, kills.

It asks nobody and reads no clock. Times are seconds of the monotonic clock; those of events, which
are UNIX time, are translated. Written by `story`, read by `screen`, `verdict` and `chart`.
"""

from collections import Counter, deque
from typing import Any

import msgspec

from sengu.control.api import Record
from sengu.demo.request import Request
from sengu.model.observed import Outcome

_RECENT_SECONDS = 1.0
_EVENTS_KEPT = 4


class Worker(msgspec.Struct):
    """A worker that lives. `state` is `starting`, `ready` or `stopping`."""

    generation: int
    slot: int
    pid: int
    state: str = "starting"


class Deploy(msgspec.Struct):
    """A deploy that was concluded. `retired`: from when on no older worker was left, 0 if never."""

    version: str
    generation: int
    outcome: str
    asked: float
    concluded: float
    retired: float = 0.0

    @property
    def succeeded(self) -> bool:
        return self.outcome == Outcome.SUCCEEDED


class Kill(msgspec.Struct):
    """A worker was killed with -9 at `at`; at `gone` the system said that its process had ended.

    `replaced`: when another one was ready in its slot, 0 if never.
    """

    worker: Worker
    at: float
    gone: float
    replaced: float = 0.0


class Ledger:
    """`clock_offset` is UNIX time minus monotonic time."""

    def __init__(self, clock_offset: float) -> None:
        self._clock_offset = clock_offset
        self._recent: deque[Request] = deque()
        self._asked = 0.0
        self.versions: list[str] = []
        self.requests: list[Request] = []
        self.failed = 0
        self.sent: int | None = None
        self.workers: dict[int, Worker] = {}
        self.deploys: dict[int, Deploy] = {}
        self.kills: list[Kill] = []
        self.events: deque[str] = deque(maxlen=_EVENTS_KEPT)
        self.problems: list[str] = []

    def announce(self, version: str) -> None:
        """The next deploy brings this version."""
        self.versions.append(version)

    def add_request(self, request: Request) -> None:
        self.requests.append(request)
        self._recent.append(request)
        self.failed += request.failed

    def recent(self, now: float) -> list[Request]:
        """The requests that ended in the last second."""
        while self._recent and self._recent[0].ended < now - _RECENT_SECONDS:
            self._recent.popleft()
        return list(self._recent)

    def answering(self, now: float) -> Counter[str]:
        """How many answers of the last second came from which version."""
        return Counter(request.version for request in self.recent(now) if not request.failed)

    def has_answer(self, version: str, after: float) -> bool:
        """Whether a request that began after that moment was answered by that version."""
        for request in reversed(self.requests):
            if request.ended < after:
                return False
            if request.begun > after and request.version == version:
                return True
        return False

    def ready_workers(self, generation: int) -> list[Worker]:
        workers = self.workers.values()
        ready = [w for w in workers if w.generation == generation and w.state == "ready"]
        return sorted(ready, key=lambda worker: worker.slot)

    def add_event(self, record: Record) -> None:
        at = record.time - self._clock_offset
        self.events.append(record.text)
        fields = record.fields
        match record.type:
            case "deploy_requested":
                self._asked = at
            case "deploy_concluded":
                self._conclude(fields, at)
            case "generation_retired":
                self._retire(at)
            case kind:
                self._follow_worker(kind, fields, at)

    def _follow_worker(self, kind: str, fields: Any, at: float) -> None:
        number = fields.get("worker")
        if kind == "worker_started":
            self.workers[number] = Worker(fields["generation"], fields["slot"], fields["pid"])
        elif kind == "worker_exited":
            self.workers.pop(number, None)
        elif worker := self.workers.get(number):
            if kind == "worker_ready":
                worker.state = "ready"
                self._replace(worker, at)
            elif kind in ("worker_stopping", "worker_killed"):
                worker.state = "stopping"

    def _replace(self, worker: Worker, at: float) -> None:
        place = (worker.generation, worker.slot)
        for kill in self.kills:
            killed = kill.worker
            if not kill.replaced and (killed.generation, killed.slot) == place:
                kill.replaced = at

    def _conclude(self, fields: Any, at: float) -> None:
        generation = fields["generation"]
        version = self.versions[-1]
        self.deploys[generation] = Deploy(version, generation, fields["outcome"], self._asked, at)
        self._retire(at)

    def _retire(self, at: float) -> None:
        oldest = min((worker.generation for worker in self.workers.values()), default=0)
        for deploy in self.deploys.values():
            if deploy.succeeded and not deploy.retired and oldest >= deploy.generation:
                deploy.retired = at
