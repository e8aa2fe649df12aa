"""The end of the service: every worker is asked once, killed at the deadline, then it is over.

Before that it may be a lame duck: nothing new is begun, and who serves is left alone.
"""

from sengu.model.actions import ConcludeDeploy, FinishService, KillWorker
from sengu.model.observed import Observed, Outcome, Phase, Stop, Worker
from sengu.model.service import ServiceSpec
from sengu.planner import drain
from sengu.planner.agenda import Agenda
from sengu.planner.steps import is_any_running


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    stop = observed.stop
    if stop is None or stop.is_over:
        return
    pending = observed.superseded
    if observed.deploy is not None:
        pending = (*pending, observed.deploy.generation)
    for generation in pending:
        agenda.do(ConcludeDeploy(generation, Outcome.ABORTED, stop.reason))
    if _is_lame_duck(stop, agenda):
        drain.plan(spec, observed, agenda)
    else:
        for worker in observed.workers.values():
            if worker.phase is not Phase.KILLED:
                _end(spec, stop, worker, agenda)
    if not observed.workers and not is_any_running(observed):
        agenda.do(FinishService(stop.failure, stop.reason))


def _is_lame_duck(stop: Stop, agenda: Agenda) -> bool:
    if stop.immediate or stop.lame_until is None:
        return False
    return not agenda.is_due(stop.lame_until)


def _end(spec: ServiceSpec, stop: Stop, worker: Worker, agenda: Agenda) -> None:
    # A worker that drains already hears the stop signal too, if that is another one.
    has_heard = worker.stop_signal == spec.stop.signal
    if stop.immediate:
        agenda.do(KillWorker(worker.id, stop.reason))
    elif not has_heard:
        kill_at = stop.kill_at if worker.kill_at is None else min(stop.kill_at, worker.kill_at)
        agenda.stop(worker, spec.stop, stop.reason, until=kill_at)
    elif agenda.is_due(stop.kill_at):
        agenda.do(KillWorker(worker.id, "still there at the end of the grace period"))
