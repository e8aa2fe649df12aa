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
    Slot,
    Stop,
    Worker,
)
from sengu.model.service import ServiceSpec

replace = msgspec.structs.replace

Fact = (
    ev.DeployRequested
    | ev.GenerationPrepared
    | ev.GenerationFailed
    | ev.GenerationRetired
    | ev.DeployConcluded
    | ev.WorkerStarted
    | ev.StartFailed
    | ev.WorkerReady
    | ev.WorkerBeat
    | ev.WorkerSaid
    | ev.WorkerStopping
    | ev.WorkerKilled
    | ev.WorkerExited
    | ev.ScaleRequested
    | ev.ScaleAdjusted
    | ev.RestRequested
    | ev.StopRequested
    | ev.ServiceStopped
)


def initial(spec: ServiceSpec) -> Observed:
    """The world before the first deploy."""
    return Observed(wanted=spec.workers)


def reduce(spec: ServiceSpec, observed: Observed, event: Fact, now: float) -> Observed:  # noqa: PLR0912
    """Take one fact in. `now` is monotonic seconds."""
    match event:
        case ev.DeployRequested():
            return _deploy_requested(observed, event)
        case ev.GenerationPrepared():
            return _change_generation(
                observed, event.generation, prepared=True, pacing=event.pacing
            )
        case ev.GenerationFailed():
            return _charge_deploy(observed, event.generation, event.problem, "")
        case ev.GenerationRetired():
            return _forget_generation(observed, event.generation)
        case ev.DeployConcluded():
            return _deploy_concluded(observed, event, now)
        case ev.WorkerStarted():
            return _worker_started(observed, event, now)
        case ev.StartFailed():
            return _charge(spec, observed, (event.generation, event.slot), event.problem, now)
        case ev.WorkerReady():
            return _worker_ready(observed, event.worker, now)
        case ev.WorkerBeat():
            return _change_worker(observed, event.worker, beat_at=now)
        case ev.WorkerSaid():
            return _change_worker(observed, event.worker, status=event.status)
        case ev.WorkerStopping():
            return _worker_stopping(spec, observed, event, now)
        case ev.WorkerKilled():
            return _change_worker(observed, event.worker, phase=Phase.KILLED, kill_at=None)
        case ev.WorkerExited():
            return _worker_exited(spec, observed, event, now)
        case ev.ScaleRequested():
            return replace(observed, wanted=event.workers, rested_from=None)
        case ev.ScaleAdjusted():
            wanted = max(0, observed.wanted + event.delta)
            return replace(observed, wanted=wanted, rested_from=None)
        case ev.RestRequested():
            rested_from = observed.wanted if observed.rested_from is None else observed.rested_from
            return replace(observed, wanted=0, rested_from=rested_from)
        case ev.StopRequested():
            immediate = event.immediate or (observed.stop is not None and observed.stop.immediate)
            failure = observed.stop.failure if observed.stop else ""
            return replace(observed, stop=Stop(f"stop by {event.by}", immediate, failure))
        case ev.ServiceStopped():
            return observed
        case _:
            assert_never(event)


def _deploy_requested(observed: Observed, event: ev.DeployRequested) -> Observed:
    if observed.stop is not None:
        return observed
    number = observed.last_generation + 1
    superseded = observed.superseded
    if observed.deploy is not None:
        superseded = (*superseded, observed.deploy.generation)
    return replace(
        observed,
        last_generation=number,
        generations={**observed.generations, number: Generation(number)},
        deploy=Deploy(number, event.by),
        superseded=superseded,
        wanted=observed.wanted if observed.rested_from is None else observed.rested_from,
        rested_from=None,
    )


def _deploy_concluded(observed: Observed, event: ev.DeployConcluded, now: float) -> Observed:
    superseded = tuple(n for n in observed.superseded if n != event.generation)
    observed = replace(observed, superseded=superseded)
    if observed.deploy is not None and observed.deploy.generation == event.generation:
        observed = replace(observed, deploy=None)
    if event.outcome is not Outcome.SUCCEEDED:
        observed = _change_generation(observed, event.generation, retire_at=now)
        never_served = observed.current == 0 and observed.deploy is None
        if never_served and observed.stop is None:
            observed = replace(observed, stop=Stop(event.reason, failure=event.reason))
        return observed
    incoming = observed.generations[event.generation]
    retire_at = now + incoming.pacing.kill_old_delay_seconds
    generations = {
        number: generation
        if generation.retire_at is not None
        else replace(generation, retire_at=retire_at)
        for number, generation in observed.generations.items()
        if number != event.generation
    }
    generations[event.generation] = replace(incoming, serving_since=now)
    return replace(observed, current=event.generation, generations=generations)


def _worker_started(observed: Observed, event: ev.WorkerStarted, now: float) -> Observed:
    key = (event.generation, event.slot)
    known = observed.slots.get(key)
    account = Slot() if known is None else replace(known, restarts=known.restarts + 1)
    worker = Worker(
        event.worker, event.generation, event.slot, event.pid, Phase.STARTING, started_at=now
    )
    return replace(
        observed,
        next_worker_id=max(observed.next_worker_id, event.worker + 1),
        workers={**observed.workers, worker.id: worker},
        slots={**observed.slots, key: account},
    )


def _worker_ready(observed: Observed, worker_id: int, now: float) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None or worker.phase is not Phase.STARTING:
        return observed
    return _change_worker(observed, worker_id, phase=Phase.READY, ready_at=now, beat_at=now)


def _worker_stopping(
    spec: ServiceSpec, observed: Observed, event: ev.WorkerStopping, now: float
) -> Observed:
    worker = observed.workers.get(event.worker)
    if worker is None:
        return observed
    deploy = observed.deploy
    rolled = worker.generation == observed.current and worker.slot < observed.wanted
    if deploy is not None and rolled and not event.failed and observed.stop is None:
        observed = replace(observed, deploy=replace(deploy, has_stopped_old=True))
    if event.failed:
        observed = _charge_worker(spec, observed, worker, event.reason, event.last_words, now)
    return _change_worker(
        observed,
        event.worker,
        phase=Phase.STOPPING,
        kill_at=event.kill_at,
        stop_signal=event.signal,
        failed=worker.failed or event.failed,
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
        return _charge_worker(spec, observed, worker, event.how, event.last_words, now)
    return observed


def _charge_worker(
    spec: ServiceSpec, observed: Observed, worker: Worker, problem: str, words: str, now: float
) -> Observed:
    """Write a failure to the account of the worker's slot, and to the deploy it belongs to."""
    key = (worker.generation, worker.slot)
    stable_since = None if worker.ready_at is None else worker.ready_at
    if stable_since is not None and now - stable_since >= spec.restart.stable_seconds:
        cleared = replace(observed.slot(*key), failures=0)
        observed = replace(observed, slots={**observed.slots, key: cleared})
    return _charge(spec, observed, key, problem, now, words)


def _charge(
    spec: ServiceSpec,
    observed: Observed,
    key: tuple[int, int],
    problem: str,
    now: float,
    words: str = "",
) -> Observed:
    account = observed.slot(*key)
    failures = account.failures + 1
    account = replace(
        account,
        failures=failures,
        retry_at=now + spec.restart.delay_seconds(failures),
        last_failure=problem,
    )
    observed = replace(observed, slots={**observed.slots, key: account})
    return _charge_deploy(observed, key[0], problem, words)


def _charge_deploy(observed: Observed, generation: int, problem: str, words: str) -> Observed:
    deploy = observed.deploy
    if deploy is None or deploy.generation != generation:
        return observed
    return replace(
        observed,
        deploy=replace(
            deploy, failures=deploy.failures + 1, last_failure=problem, last_words=words
        ),
    )


def _change_worker(observed: Observed, worker_id: int, **changes: object) -> Observed:
    worker = observed.workers.get(worker_id)
    if worker is None:
        return observed
    changed = replace(worker, **changes)
    return replace(observed, workers={**observed.workers, worker_id: changed})


def _change_generation(observed: Observed, number: int, **changes: object) -> Observed:
    generation = observed.generations.get(number)
    if generation is None:
        return observed
    changed = replace(generation, **changes)
    return replace(observed, generations={**observed.generations, number: changed})


def _forget_generation(observed: Observed, number: int) -> Observed:
    return replace(
        observed,
        generations={k: v for k, v in observed.generations.items() if k != number},
        slots={k: v for k, v in observed.slots.items() if k[0] != number},
    )
