"""What a policy writes into: actions to do now, and the earliest moment to look again."""

from sengu.model.actions import AnyAction, StartWorker
from sengu.model.observed import Observed

# Thousands of starts at once would keep the server from everything else for seconds.
STARTS_AT_ONCE = 50


class Agenda:
    """Collects one round of planning at `now`. A policy either acts, or says when it next might."""

    __slots__ = ("_next_worker_id", "actions", "now", "wake_at")

    def __init__(self, observed: Observed, now: float) -> None:
        self.now = now
        self.actions: list[AnyAction] = []
        self.wake_at: float | None = None
        self._next_worker_id = observed.next_worker_id

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
        if len(self.actions) >= STARTS_AT_ONCE:
            return
        self.do(StartWorker(self._next_worker_id, generation, slot, reason))
        self._next_worker_id += 1
