"""What becomes of workers, from the moment they are asked for: part of `reduce`.

A fact about a worker that is already gone changes nothing: signals and messages may cross.
"""

from typing import assert_never

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import ServiceSpec
from sengu.planner.account import Failure, charge_slot, charge_worker, close_slot
from sengu.planner.inquiries import change_generation
from sengu.planner.jitter import varied

replace = msgspec.structs.replace

WorkerFact = (
    ev.WorkerRequested
    | ev.WorkerStarted
    | ev.StartFailed
    | ev.WorkerReady
    | ev.WorkerBeat
    | ev.WorkerSaid
    | ev.WorkerOverdue
    | ev.WorkerWorn
    | ev.WorkerDraining
    | ev.WorkerDrained
    | ev.WorkerStopping
    | ev.WorkerUrged
    | ev.WorkerKilled
    | ev.WorkerExited
)


def reduce_worker(  # noqa: PLR0912
    spec: ServiceSpec, observed: Observed, event: WorkerFact, now: float
) -> Observed:
    """Take one fact in that is about a worker, or about one that could not be had."""
    match event:
        case ev.WorkerRequested():
            return _worker_requested(spec, observed, event, now)
        case ev.WorkerStarted():
            return _worker_started(spec, observed, event, now)
        case ev.StartFailed():
            failure = Failure(event.problem, now)
            return charge_slot(spec, observed, (event.generation, event.slot), failure)
        case ev.WorkerReady():
            return _worker_ready(observed, event.worker, now)
        case ev.WorkerBeat():
            return _worker_beat(observed, event.worker, now)
        case ev.WorkerSaid() if event.extends_seconds:
            until = now + event.extends_seconds
            return _change_worker(observed, event.worker, extended_until=until)
        case ev.WorkerSaid():
            return _change_worker(observed, event.worker, status=event.status)
        case ev.WorkerOverdue():
            return _change_worker(observed, event.worker, overdue=event.problem)
        case ev.WorkerWorn():
            return _change_worker(observed, event.worker, worn=event.reason)
        case ev.WorkerDraining():
            return _worker_draining(observed, event)
        case ev.WorkerDrained():
            return _worker_drained(observed, event)
        case ev.WorkerStopping():
            return _worker_stopping(spec, observed, event, now)
        case ev.WorkerUrged():
            return _worker_urged(observed, event.worker)
        case ev.WorkerKilled():
            return _worker_killed(observed, event)
        case ev.WorkerExited():
            return _worker_exited(spec, observed, event, now)
        case _:
            assert_never(event)


def _worker_requested(
    spec: ServiceSpec,
    observed: Observed,
    event: ev.WorkerRequested | ev.WorkerStarted,
    now: float,
) -> Observed:
    if event.worker < observed.next_worker_id:  # known, or gone already
        return observed
    worker = Worker(event.worker, event.generation, event.slot, 0, Phase.STARTING, started_at=now)
    observed = replace(
        observed,
        next_worker_id=event.worker + 1,
        workers={**observed.workers, worker.id: worker},
    )
    if not spec.start.delay_seconds:
        return observed
    pause = varied(spec.start.delay_seconds, spec.start.jitter, worker.id)
    return change_generation(observed, event.generation, next_start_at=now + pause)


def _worker_started(
    spec: ServiceSpec, observed: Observed, event: ev.WorkerStarted, now: float
) -> Observed:
    """All its time begins now: none of it is lost to the forks of those who came before it."""
    observed = _worker_requested(spec, observed, event, now)
    worker = observed.workers.get(event.worker)
    if worker is None or worker.pid == event.pid:  # gone, or told twice
        return observed
    return _change_worker(observed, event.worker, pid=event.pid, started_at=now)


def _worker_ready(observed: Observed, worker_id: int, now: float) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None or worker.phase is not Phase.STARTING:
        return observed
    return _change_worker(observed, worker_id, phase=Phase.READY, ready_at=now, beat_at=now)


def _worker_beat(observed: Observed, worker_id: int, now: float) -> Observed:
    """Counts from readiness on: before, nobody waits for it."""
    worker = observed.workers.get(worker_id)
    if worker is None or worker.beat_at is None:
        return observed
    return _change_worker(observed, worker_id, beat_at=now)


def _worker_draining(observed: Observed, event: ev.WorkerDraining) -> Observed:
    worker = observed.workers.get(event.worker)
    if worker is None or not worker.is_wanted:
        return observed
    return _change_worker(
        _given_up(observed, worker),
        event.worker,
        phase=Phase.DRAINING,
        drain_until=event.until,
        reason=event.reason,
    )


def _worker_drained(observed: Observed, event: ev.WorkerDrained) -> Observed:
    worker = observed.workers.get(event.worker)
    if worker is None or worker.phase is not Phase.DRAINING:
        return observed
    return _change_worker(observed, event.worker, drained=event.how)


def _given_up(observed: Observed, worker: Worker) -> Observed:
    """One that serves is to go by choice: the deploy under way may have taken its place."""
    deploy = observed.deploy
    rolled = worker.generation == observed.current and worker.slot < observed.wanted
    if deploy is None or not rolled:
        return observed
    return replace(observed, deploy=replace(deploy, has_stopped_old=True))


def _worker_stopping(
    spec: ServiceSpec, observed: Observed, event: ev.WorkerStopping, now: float
) -> Observed:
    """Whoever has drained was given up before, and fails nobody any more."""
    worker = observed.workers.get(event.worker)
    if worker is None:
        return observed
    if worker.is_wanted and not event.failed:
        observed = _given_up(observed, worker)
    elif worker.is_wanted:
        failure = Failure(event.reason, now, event.last_words)
        observed = charge_worker(spec, observed, worker, failure)
    return _change_worker(
        observed,
        event.worker,
        phase=Phase.STOPPING,
        kill_at=event.kill_at,
        stop_signal=event.signal,
        urgings=event.urgings,
        condemned=worker.condemned or (event.reason if event.failed else ""),
    )


def _worker_urged(observed: Observed, worker_id: int) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None:
        return observed
    return _change_worker(observed, worker_id, urgings=worker.urgings[1:])


def _worker_killed(observed: Observed, event: ev.WorkerKilled) -> Observed:
    """Why it is killed at last tells less than why it was asked to stop as one that has failed."""
    worker = observed.workers.get(event.worker)
    if worker is None:
        return observed
    condemned = worker.condemned or event.reason
    return _change_worker(observed, event.worker, phase=Phase.KILLED, condemned=condemned)


def _worker_exited(
    spec: ServiceSpec, observed: Observed, event: ev.WorkerExited, now: float
) -> Observed:
    worker = observed.workers.get(event.worker)
    if worker is None:
        return observed
    workers = {k: v for k, v in observed.workers.items() if k != event.worker}
    observed = replace(observed, workers=workers)
    if not worker.is_wanted:
        return observed
    failure = Failure(event.how, now, event.last_words)
    observed = charge_worker(spec, observed, worker, failure)
    code = event.exit_code
    if code is not None and code in spec.restart.final_codes:
        return close_slot(observed, worker, code)
    return observed


def _change_worker(observed: Observed, worker_id: int, **changes: object) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None:
        return observed
    changed = replace(worker, **changes)
    return replace(observed, workers={**observed.workers, worker_id: changed})
