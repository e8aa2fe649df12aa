"""Asks a worker to stop whose queues are empty, or have had their time to become so.

Since it was given up (`retire`), connections are steered past it. Imported by `plan`, and by
`shutdown` for as long as the workers of a service that ends are left alone.
"""

from sengu.model.observed import Observed, Phase
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda
from sengu.planner.retirement import retirement


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    for worker in observed.workers.values():
        if worker.phase is not Phase.DRAINING or worker.drain_until is None:
            continue
        reason = worker.reason
        if not worker.drained:
            if not agenda.is_due(worker.drain_until):
                continue
            reason = f"{reason}; its queues were not empty after {spec.drain_seconds or 0:g} s"
        agenda.stop(worker, retirement(spec, observed, worker), reason)
