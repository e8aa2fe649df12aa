"""Gives up workers that are not wanted any more: old generations, failed ones, slots scaled away,
worn ones whose successor is ready.

One rule for all of them keeps the service whole: a ready worker is asked to stop, or drained to be
asked (`drain`), only if enough ready ones stay.
"""

from collections.abc import Iterator

from sengu.model.actions import DrainWorker, RetireGeneration
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import Rolling, ServiceSpec
from sengu.planner.agenda import Agenda
from sengu.planner.quorum import quorum
from sengu.planner.recycle import wear
from sengu.planner.retirement import is_late, retirement


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    spare = observed.ready_count() - quorum(spec, observed)
    for worker, reason in _surplus(spec, observed, agenda):
        if worker.phase is Phase.READY:
            if spare <= 0:
                continue
            spare -= 1
        if worker.phase is Phase.READY and spec.drain_seconds is not None:
            agenda.do(DrainWorker(worker.id, agenda.now + spec.drain_seconds, reason))
        else:
            agenda.stop(worker, retirement(spec, observed, worker), reason)
    for worker in observed.workers.values():
        if worker.phase is Phase.STOPPING and is_late(observed, worker, agenda.now):
            reason = f"generation {observed.current} is to replace it at once"
            agenda.stop(worker, retirement(spec, observed, worker), reason)
    inhabited = {worker.generation for worker in observed.workers.values()}
    for number, generation in observed.generations.items():
        is_empty = number not in inhabited and generation.step is None
        if is_empty and number not in _in_use(observed):
            agenda.do(RetireGeneration(number, "its last worker is gone"))


def _in_use(observed: Observed) -> tuple[int, ...]:
    incoming = (observed.deploy.generation,) if observed.deploy else ()
    return (observed.current, *incoming)


def _surplus(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> Iterator[tuple[Worker, str]]:
    in_use = _in_use(observed)
    for worker in observed.workers.values():
        if not worker.is_wanted:
            continue
        if worker.generation not in in_use:
            retire_at = observed.generations[worker.generation].retire_at
            if retire_at is None or agenda.is_due(retire_at):
                successor = f"generation {observed.current}" if observed.current else "another"
                yield worker, f"{successor} serves instead"
        elif worker.slot >= observed.wanted:
            is_resting = observed.rested_from is not None
            yield worker, "to rest" if is_resting else f"scaled to {observed.wanted}"
        elif (why := wear(spec, worker, agenda)) and _is_replaced(observed, worker):
            yield worker, f"another has taken its place: {why}"
    if isinstance(spec.strategy, Rolling) and observed.deploy is not None:
        yield from _rolled(spec.strategy, observed, agenda)


def _is_replaced(observed: Observed, worker: Worker) -> bool:
    """Whether one that was started later is ready in the same place."""
    return any(
        other.id > worker.id and other.slot == worker.slot and other.phase is Phase.READY
        for other in observed.workers_of(worker.generation)
    )


def _rolled(strategy: Rolling, observed: Observed, agenda: Agenda) -> Iterator[tuple[Worker, str]]:
    """Old workers that a rolling deploy may take out, those with a ready successor first.

    Only ready ones: one that is starting was started to keep up the quorum, and would be again.
    """
    assert observed.deploy is not None
    generation = observed.generations[observed.deploy.generation]
    delay = 0.0 if generation.immediate else generation.pacing.kill_old_delay_seconds
    settled = {
        worker.slot
        for worker in observed.workers_of(generation.number)
        if worker.ready_at is not None
        and worker.phase is Phase.READY
        and agenda.is_due(worker.ready_at + delay)
    }
    if not settled:
        return
    old = [
        worker
        for worker in observed.workers_of(observed.current)
        if worker.phase is Phase.READY and worker.slot < observed.wanted
    ]
    for worker in sorted(old, key=lambda worker: worker.slot not in settled):
        if worker.slot in settled or strategy.max_unavailable:
            yield worker, f"rolling to generation {generation.number}"
