"""The end of the service: every worker is asked once, killed at its deadline, then it is over."""

from sengu.model.actions import ConcludeDeploy, FinishService, KillWorker, StopWorker
from sengu.model.observed import Observed, Outcome, Phase
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    stop = observed.stop
    assert stop is not None
    pending = observed.superseded
    if observed.deploy is not None:
        pending = (*pending, observed.deploy.generation)
    for generation in pending:
        agenda.do(ConcludeDeploy(generation, Outcome.ABORTED, stop.reason))
    for worker in observed.workers.values():
        if stop.immediate:
            if worker.phase is not Phase.KILLED:
                agenda.do(KillWorker(worker.id, stop.reason))
        elif worker.is_wanted or _heard_another_signal(spec, worker.stop_signal):
            if worker.phase is Phase.KILLED:
                continue
            kill_at = agenda.now + spec.stop.grace_seconds
            if worker.kill_at is not None:
                kill_at = min(kill_at, worker.kill_at)
            agenda.do(StopWorker(worker.id, spec.stop.signal, kill_at, stop.reason))
    if not observed.workers and not agenda.actions:
        agenda.do(FinishService(stop.failure, stop.reason))


def _heard_another_signal(spec: ServiceSpec, signal: int) -> bool:
    """A draining worker whose service ends hears the stop signal too, if that is another one."""
    return signal != spec.stop.signal
