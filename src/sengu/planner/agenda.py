"""What a policy writes into: actions to do now, and the earliest moment to look again."""

from sengu.model.actions import AnyAction, StartWorker, StopWorker
from sengu.model.observed import Observed, Urging, Worker
from sengu.model.service import ServiceSpec, StopPolicy

# Thousands of starts at once would keep the server from everything else for seconds.
STARTS_AT_ONCE = 50


class Agenda:
    """Collects one round of planning at `now`. A policy either acts, or says when it next might."""

    __slots__ = ("_generations", "_next_worker_id", "_starts_at_once", "actions", "now", "wake_at")

    def __init__(self, spec: ServiceSpec, observed: Observed, now: float) -> None:
        self.now = now
        self.actions: list[AnyAction] = []
        self.wake_at: float | None = None
        self._next_worker_id = observed.next_worker_id
        self._generations = observed.generations
        self._starts_at_once = 1 if spec.start.delay_seconds else STARTS_AT_ONCE

    def do(self, action: AnyAction) -> None:
        self.actions.append(action)

    def is_due(self, when: float) -> bool:
        """Whether `when` has come; if not, look again then."""
        if when <= self.now:
            return True
        if self.wake_at is None or when < self.wake_at:
            self.wake_at = when
        return False

    def start(self, generation: int, slot: int, reason: str) -> None:
        """Start a worker under the next free id; what is too much for now is planned again."""
        if len(self.actions) >= self._starts_at_once:
            return
        if not self.is_due(self._generations[generation].next_start_at):
            return
        self.do(StartWorker(self._next_worker_id, generation, slot, reason))
        self._next_worker_id += 1

    def stop(
        self,
        worker: Worker,
        policy: StopPolicy,
        reason: str,
        *,
        until: float | None = None,
        failed: bool = False,
    ) -> None:
        """Ask the worker to go; who is still there after its grace, or at `until`, is killed."""
        kill_at = self.now + policy.grace_seconds if until is None else until
        urgings = tuple(Urging(step.signal, self.now + step.after_seconds) for step in policy.steps)
        self.do(StopWorker(worker.id, policy.signal, kill_at, reason, failed, urgings))
