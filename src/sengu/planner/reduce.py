"""The one place where facts change. `reduce(spec, observed, event, now)` returns a new `Observed`.

A fact about a worker that is already gone changes nothing: signals and messages may cross.
"""

from typing import assert_never

import msgspec

from sengu.model import events as ev
from sengu.model.observed import (
    Deploy,
    Generation,
    Observed,
    Outcome,
    Phase,
    Stop,
    Worker,
)
from sengu.model.service import ServiceSpec
from sengu.planner.account import Failure, charge_slot, charge_worker
from sengu.planner.generations import GenerationFact, change_generation, reduce_generation

replace = msgspec.structs.replace

Fact = (
    ev.DeployRequested
    | ev.DeployConcluded
    | GenerationFact
    | ev.WorkerRequested
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
    | ev.WorkerKilled
    | ev.WorkerExited
    | ev.ScaleRequested
    | ev.ScaleAdjusted
    | ev.RestRequested
    | ev.StopRequested
    | ev.ServiceStopped
    | ev.ServerAdopted
    | ev.UpgradeRequested
    | ev.UpgradeFailed
    | ev.Upgraded
)


def initial(spec: ServiceSpec) -> Observed:
    """The world before the first deploy."""
    return Observed(wanted=spec.workers)


def reduce(spec: ServiceSpec, observed: Observed, event: Fact, now: float) -> Observed:  # noqa: PLR0912
    """Take one fact in. `now` is monotonic seconds."""
    if isinstance(event, GenerationFact):
        return reduce_generation(spec, observed, event, now)
    match event:
        case ev.DeployRequested():
            return _deploy_requested(observed, event)
        case ev.DeployConcluded():
            return _deploy_concluded(spec, observed, event, now)
        case ev.WorkerRequested():
            return _worker_requested(observed, event, now)
        case ev.WorkerStarted():
            return _worker_started(observed, event, now)
        case ev.StartFailed():
            failure = Failure(event.problem, now)
            return charge_slot(spec, observed, (event.generation, event.slot), failure)
        case ev.WorkerReady():
            return _worker_ready(observed, event.worker, now)
        case ev.WorkerBeat():
            return _worker_beat(observed, event.worker, now)
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
        case ev.WorkerKilled():
            return _change_worker(observed, event.worker, phase=Phase.KILLED)
        case ev.WorkerExited():
            return _worker_exited(spec, observed, event, now)
        case ev.ScaleRequested():
            return _scaled(observed, event.workers)
        case ev.ScaleAdjusted():
            return _adjusted(observed, event.delta)
        case ev.RestRequested():
            return _rested(observed)
        case ev.StopRequested():
            return _stop_requested(spec, observed, event, now)
        case ev.ServiceStopped():
            return _stopped(observed)
        case ev.ServerAdopted():
            return _server_adopted(observed, now)
        case ev.UpgradeRequested() | ev.UpgradeFailed() | ev.Upgraded():
            return observed  # the service is the same, whoever looks after it
        case _:
            assert_never(event)


def _deploy_requested(observed: Observed, event: ev.DeployRequested) -> Observed:
    if observed.stop is not None:
        return observed
    number = observed.last_generation + 1
    superseded = observed.superseded
    wakes = observed.rested_from is not None
    if observed.deploy is not None:
        superseded = (*superseded, observed.deploy.generation)
        wakes = wakes or observed.deploy.wakes
    return replace(
        observed,
        last_generation=number,
        generations={**observed.generations, number: Generation(number)},
        deploy=Deploy(number, event.by, wakes=wakes, token=event.token),
        superseded=superseded,
        wanted=observed.wanted if observed.rested_from is None else observed.rested_from,
        rested_from=None,
    )


def _scaled(observed: Observed, wanted: int) -> Observed:
    deploy = observed.deploy and replace(observed.deploy, wakes=False)
    return replace(observed, wanted=wanted, rested_from=None, deploy=deploy)


def _adjusted(observed: Observed, delta: int) -> Observed:
    wanted = max(0, observed.wanted + delta)
    # One less than none is no news, least of all to a resting service.
    return observed if wanted == observed.wanted else _scaled(observed, wanted)


def _rested(observed: Observed) -> Observed:
    if observed.rested_from is not None:
        return observed
    return replace(observed, wanted=0, rested_from=observed.wanted)


def _stop_requested(
    spec: ServiceSpec, observed: Observed, event: ev.StopRequested, now: float
) -> Observed:
    reason = f"stop by {event.by}"
    stop = observed.stop
    if stop is None:
        lame_until = _lame_until(spec, observed, event, now)
        kill_at = (lame_until or now) + spec.stop.grace_seconds
        stop = Stop(reason, kill_at, event.immediate, lame_until=lame_until, token=event.token)
        return replace(observed, stop=stop)
    if event.token and event.token == stop.token:  # asked again by who has lost the answer
        return observed
    stop = replace(
        stop,
        reason=reason,
        immediate=event.immediate or stop.immediate,
        kill_at=min(stop.kill_at, now + spec.stop.grace_seconds),
        lame_until=None,
    )
    return replace(observed, stop=stop)


def _lame_until(
    spec: ServiceSpec, observed: Observed, event: ev.StopRequested, now: float
) -> float | None:
    """Where nobody serves, nobody has to be told that it ends."""
    if event.immediate or event.urgent or not observed.ready_count():
        return None
    return now + spec.lame_duck_seconds if spec.lame_duck_seconds else None


def _stopped(observed: Observed) -> Observed:
    assert observed.stop is not None
    return replace(observed, stop=replace(observed.stop, is_over=True))


def _deploy_concluded(
    spec: ServiceSpec, observed: Observed, event: ev.DeployConcluded, now: float
) -> Observed:
    superseded = tuple(n for n in observed.superseded if n != event.generation)
    observed = replace(observed, superseded=superseded, concluded_at=now)
    deploy = observed.deploy
    is_current = deploy is not None and deploy.generation == event.generation
    observed = replace(observed, deploy=None if is_current else deploy)
    if event.outcome is Outcome.SUCCEEDED:
        return _now_serves(observed, event.generation, now)
    observed = change_generation(observed, event.generation, retire_at=now)
    if deploy is None or not is_current:  # another has superseded it
        return observed
    if observed.current == 0 and observed.stop is None:
        kill_at = now + spec.stop.grace_seconds
        return replace(observed, stop=Stop(event.reason, kill_at, failure=event.reason))
    return _rested(observed) if deploy.wakes else observed


def _now_serves(observed: Observed, number: int, now: float) -> Observed:
    retire_at = now + observed.generations[number].pacing.kill_old_delay_seconds
    for generation in observed.generations.values():
        if generation.number < number and generation.retire_at is None:
            observed = change_generation(observed, generation.number, retire_at=retire_at)
    return replace(observed, current=number)


def _worker_requested(
    observed: Observed, event: ev.WorkerRequested | ev.WorkerStarted, now: float
) -> Observed:
    if event.worker < observed.next_worker_id:  # known, or gone already
        return observed
    worker = Worker(event.worker, event.generation, event.slot, 0, Phase.STARTING, started_at=now)
    return replace(
        observed,
        next_worker_id=event.worker + 1,
        workers={**observed.workers, worker.id: worker},
    )


def _worker_started(observed: Observed, event: ev.WorkerStarted, now: float) -> Observed:
    """All its time begins now: none of it is lost to the forks of those who came before it."""
    observed = _worker_requested(observed, event, now)
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
    )


def _worker_exited(
    spec: ServiceSpec, observed: Observed, event: ev.WorkerExited, now: float
) -> Observed:
    worker = observed.workers.get(event.worker)
    if worker is None:
        return observed
    workers = {k: v for k, v in observed.workers.items() if k != event.worker}
    observed = replace(observed, workers=workers)
    if worker.is_wanted:
        failure = Failure(event.how, now, event.last_words)
        return charge_worker(spec, observed, worker, failure)
    return observed


def _server_adopted(observed: Observed, now: float) -> Observed:
    """Nobody is to be blamed for beats that no server was there to hear."""
    workers = {
        worker.id: worker if worker.beat_at is None else replace(worker, beat_at=now)
        for worker in observed.workers.values()
    }
    return replace(observed, workers=workers)


def _change_worker(observed: Observed, worker_id: int, **changes: object) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None:
        return observed
    changed = replace(worker, **changes)
    return replace(observed, workers={**observed.workers, worker_id: changed})
