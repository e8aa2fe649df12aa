"""Replaces workers that are worn out: too many requests, too much memory, too old.

The successor comes first, into the same slot; `retire` takes the old one out when it is ready. One
at a time, and none during a deploy, which replaces them all.
"""

from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda
from sengu.planner.jitter import lot
from sengu.planner.prepare import prepare


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    if spec.application is None or observed.deploy is not None or observed.current == 0:
        return
    crew = [
        worker
        for worker in observed.workers_of(observed.current)
        if worker.is_wanted and worker.slot < observed.wanted
    ]
    worn = [(worker, why) for worker in crew if (why := wear(spec, worker, agenda))]
    if not worn or any(worker.phase is Phase.STARTING for worker in crew):
        return
    generation = observed.generations[observed.current]
    for worker, why in worn:
        is_alone = sum(other.slot == worker.slot for other in crew) == 1
        account = observed.slot(worker.generation, worker.slot)
        if is_alone and agenda.is_due(account.retry_at):
            reason = f"to replace pid {worker.pid}: {why}"
            if generation.prepared:
                agenda.start(generation.number, worker.slot, reason)
            else:
                prepare(spec, observed, generation, agenda, reason)
            return


def wear(spec: ServiceSpec, worker: Worker, agenda: Agenda) -> str:
    """Why the worker is worn out; empty as long as it is not."""
    if spec.application is None or worker.phase is not Phase.READY or worker.ready_at is None:
        return ""
    policy = spec.application.wear
    if worker.worn or policy.max_age_seconds is None:
        return worker.worn
    earlier = policy.jitter * lot(worker.id)
    age = policy.max_age_seconds * (1 - earlier)
    return f"older than {age:.0f} s" if agenda.is_due(worker.ready_at + age) else ""
