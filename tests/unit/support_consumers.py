"""A message on its way through a consumer's queues, as a broker would hand it out."""

from collections.abc import Iterator
from typing import Any

from sengu.consumers.model.judge import (
    DELIVERY_COUNT,
    DONE,
    Delivered,
    Ending,
    Move,
    Origin,
    Outcome,
    admit,
    conclude,
)
from sengu.consumers.model.spec import ConsumerSpec, retrying
from sengu.consumers.model.topology import dead_queue, suspects_queue

# What happens to a message that a worker has: its worker dies, or its job ends.
KILL = "kill"
Happening = str | Ending


def spec_of(retries: int = 5, **options: Any) -> ConsumerSpec:
    plan = retrying(retries, "exponential")
    return ConsumerSpec(name="handle", queue="downloads", retrying=plan, **options)


class Journey:
    """`runs` counts how often it was handled, `deliveries` how often the broker handed it out."""

    def __init__(self, spec: ConsumerSpec) -> None:
        self.spec = spec
        self.headers: dict[str, Any] = {}
        self.queue = spec.queue
        self.runs = self.deliveries = 0
        self._returns = 0

    @property
    def is_over(self) -> bool:
        return self.queue in {"", dead_queue(self.spec.queue)}

    @property
    def is_suspect(self) -> bool:
        return self.queue == suspects_queue(self.spec.queue)

    def travel(self, happenings: Iterator[Happening]) -> None:
        """Until it is over, or nothing more happens."""
        while not self.is_over:
            delivered = self._delivered()
            self.deliveries += 1
            if move := admit(self.spec, delivered):
                self._go(move)
                continue
            happening = next(happenings, None)
            if happening is None:
                return
            self.runs += 1
            if isinstance(happening, Ending):
                self._go(conclude(self.spec, delivered, happening))
            else:
                self._returns += 1

    def _delivered(self) -> Delivered:
        headers = dict(self.headers)
        is_counted = self.spec.type == "quorum" or self.is_suspect
        if is_counted and self._returns:
            headers[DELIVERY_COUNT] = self._returns
        origin = Origin.SUSPECTS if self.is_suspect else Origin.MAIN
        return Delivered(headers, "", self.queue, self._returns > 0, origin)

    def _go(self, move: Move | None) -> None:
        self._returns = 0
        if move is None:
            self.queue = ""
            return
        self.headers = dict(move.headers)
        # Retry queues hand it back to its own, as time goes by.
        self.queue = self.spec.queue if move.delay_seconds is not None else move.queue


FAILED = Ending(Outcome.FAILED, "ValueError: no")
TIMED_OUT = Ending(Outcome.TIMED_OUT, "its 30 s were up")
REJECTED = Ending(Outcome.REJECTED)
REQUEUED = Ending(Outcome.REQUEUED)

__all__ = [
    "DONE",
    "FAILED",
    "KILL",
    "REJECTED",
    "REQUEUED",
    "TIMED_OUT",
    "Happening",
    "Journey",
    "spec_of",
]
