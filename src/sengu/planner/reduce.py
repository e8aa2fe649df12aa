"""The one place where facts change. `reduce(spec, observed, event, now)` returns a new `Observed`.

A fact about a worker that is already gone changes nothing: signals and messages may cross.
"""

from typing import assert_never

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Deploy, Generation, Observed, Outcome, Stop
from sengu.model.service import ServiceSpec
from sengu.planner.account import final_code, open_slots
from sengu.planner.generations import GenerationFact, reduce_generation
from sengu.planner.inquiries import change_generation, configure_requested
from sengu.planner.workers import WorkerFact, reduce_worker

replace = msgspec.structs.replace

Fact = (
    ev.DeployRequested
    | ev.DeployConcluded
    | GenerationFact
    | WorkerFact
    | ev.ScaleRequested
    | ev.ScaleAdjusted
    | ev.RestRequested
    | ev.StopRequested
    | ev.ServiceStopped
    | ev.ConfigureRequested
    | ev.ServerAdopted
    | ev.UpgradeRequested
    | ev.UpgradeFailed
    | ev.Upgraded
)


def initial(spec: ServiceSpec) -> Observed:
    """The world before the first deploy."""
    return Observed(wanted=spec.workers)


def reduce(  # noqa: PLR0912
    spec: ServiceSpec, observed: Observed, event: Fact, now: float
) -> Observed:
    """Take one fact in. `now` is monotonic seconds."""
    if isinstance(event, GenerationFact):
        return reduce_generation(spec, observed, event, now)
    if isinstance(event, WorkerFact):
        return reduce_worker(spec, observed, event, now)
    match event:
        case ev.DeployRequested():
            return _deploy_requested(observed, event)
        case ev.DeployConcluded():
            return _deploy_concluded(spec, observed, event, now)
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
        case ev.ConfigureRequested():
            return configure_requested(spec, observed)
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
        generations={
            **observed.generations,
            number: Generation(number, immediate=event.immediate),
        },
        deploy=Deploy(number, event.by, wakes=wakes, token=event.token),
        superseded=superseded,
        wanted=observed.wanted if observed.rested_from is None else observed.rested_from,
        rested_from=None,
    )


def _scaled(observed: Observed, wanted: int) -> Observed:
    """So many are wanted: also in slots that were closed."""
    deploy = observed.deploy and replace(observed.deploy, wakes=False)
    slots = open_slots(observed)
    return replace(observed, wanted=wanted, rested_from=None, deploy=deploy, slots=slots)


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
        stop = Stop(
            reason,
            kill_at,
            event.immediate,
            lame_until=lame_until,
            token=event.token,
            exit_code=event.exit_code,
        )
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
        code = final_code(observed, event.generation)
        stop = Stop(event.reason, kill_at, failure=event.reason, exit_code=code)
        return replace(observed, stop=stop)
    return _rested(observed) if deploy.wakes else observed


def _now_serves(observed: Observed, number: int, now: float) -> Observed:
    newest = observed.generations[number]
    retire_at = now + (0.0 if newest.immediate else newest.pacing.kill_old_delay_seconds)
    for generation in observed.generations.values():
        if generation.number < number and generation.retire_at is None:
            observed = change_generation(observed, generation.number, retire_at=retire_at)
    return replace(observed, current=number)


def _server_adopted(observed: Observed, now: float) -> Observed:
    """Nobody is to be blamed for beats that no server was there to hear."""
    workers = {
        worker.id: worker if worker.beat_at is None else replace(worker, beat_at=now)
        for worker in observed.workers.values()
    }
    return replace(observed, workers=workers)
