"""Keeps the serving generation at the wanted number: after a crash, or a scale up.

A slot whose workers keep dying waits longer each time; the others are not touched.
"""

from collections.abc import Iterable

from sengu.model.observed import Observed
from sengu.model.service import Rolling, ServiceSpec
from sengu.planner.agenda import Agenda


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    if observed.current == 0:
        return
    taken = {w.slot for w in observed.workers_of(observed.current) if w.is_wanted}
    missing = [slot for slot in range(observed.wanted) if slot not in taken]
    if isinstance(spec.strategy, Rolling) and _is_rolling(observed):
        # The new generation fills the slots now; the old one only keeps up the minimum.
        live = sum(worker.is_wanted for worker in observed.workers.values())
        lacking = observed.wanted - spec.strategy.max_unavailable - live
        missing = missing[: max(lacking, 0)]
    start_slots(observed, observed.current, missing, agenda)


def start_slots(
    observed: Observed,
    generation: int,
    slots: Iterable[int],
    agenda: Agenda,
    reason: str = "",
) -> None:
    """Start a worker in each of `slots` whose back-off is over."""
    for slot in slots:
        account = observed.slot(generation, slot)
        if agenda.is_due(account.retry_at):
            why = f"after: {account.last_failure}" if account.last_failure else "slot is empty"
            agenda.start(generation, slot, reason or why)


def _is_rolling(observed: Observed) -> bool:
    return observed.deploy is not None and observed.deploy.has_stopped_old
