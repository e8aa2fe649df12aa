"""Keeps the serving generation at the wanted number: after a crash, or a scale up.

A slot whose workers keep dying waits longer each time; the others are not touched.
"""

from collections.abc import Iterable

from sengu.model.actions import RequestStop
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.planner.account import final_code
from sengu.planner.agenda import Agenda
from sengu.planner.prepare import prepare
from sengu.planner.quorum import closed_slots, quorum


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    deploy = observed.deploy
    if observed.current == 0 or (deploy is not None and deploy.wakes):
        return
    closed = closed_slots(observed)
    if closed and (spec.restart.ends_at_once or len(closed) == observed.wanted):
        _end(observed, agenda)
        return
    taken = {w.slot for w in observed.workers_of(observed.current) if w.is_wanted} | closed
    missing = [slot for slot in range(observed.wanted) if slot not in taken]
    if deploy is not None and deploy.has_stopped_old:
        # The new generation fills the slots now, from the first on; the old one only keeps up the
        # quorum, from the last on.
        lacking = max(quorum(spec, observed) - observed.live_count(), 0)
        missing = missing[::-1][:lacking]
    reason = f"{observed.wanted} workers are wanted"
    generation = observed.generations[observed.current]
    if generation.prepared:
        start_slots(observed, observed.current, missing, agenda, reason)
    elif any(agenda.is_due(observed.slot(observed.current, slot).retry_at) for slot in missing):
        prepare(spec, observed, generation, agenda, reason)  # its fork server is gone


def _end(observed: Observed, agenda: Agenda) -> None:
    """A worker has ended in a way that no other would mend; while one is deployed, that may."""
    code = final_code(observed, observed.current)
    if code is not None and observed.deploy is None:
        agenda.do(RequestStop(f"a worker that exited with {code}, which is final", code))


def start_slots(
    observed: Observed, generation: int, slots: Iterable[int], agenda: Agenda, reason: str
) -> None:
    """Start a worker in each of `slots` whose back-off is over."""
    for slot in slots:
        account = observed.slot(generation, slot)
        if agenda.is_due(account.retry_at):
            why = f"after {account.last_failure}" if account.last_failure else reason
            agenda.start(generation, slot, why)
