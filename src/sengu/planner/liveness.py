"""Deadlines of single workers: ready in time, beating in time, gone in time."""

from sengu.model.actions import DeclareReady, KillWorker, UrgeWorker
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import ReadyAfterDelay, ServiceSpec, StopPolicy
from sengu.planner.agenda import Agenda

# systemd's habit for a missed watchdog: ABRT leaves a core or, from our own workers, a dump of all
# stacks; a hung process gets little time for it, because nobody is served meanwhile.
_HANGING = StopPolicy(6, 2.0)  # SIGABRT
_SERVING = (Phase.READY, Phase.DRAINING)


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    for worker in observed.workers.values():
        if worker.phase is Phase.STARTING:
            _boot(spec, worker, agenda)
        elif worker.phase in _SERVING:
            _watchdog(spec, worker, agenda)
            _request(worker, agenda)
        elif worker.phase is Phase.STOPPING:
            _escalate(worker, agenda)


def _boot(spec: ServiceSpec, worker: Worker, agenda: Agenda) -> None:
    readiness = spec.boot.readiness
    if worker.pid and isinstance(readiness, ReadyAfterDelay):
        if agenda.is_due(worker.started_at + readiness.seconds):
            agenda.do(DeclareReady(worker.id, f"alive after {readiness.seconds:g} s"))
    elif agenda.is_due(max(worker.started_at + spec.boot.timeout_seconds, worker.extended_until)):
        reason = f"not ready within {spec.boot.timeout_seconds:g} s"
        agenda.stop(worker, spec.stop, reason, failed=True)


def _watchdog(spec: ServiceSpec, worker: Worker, agenda: Agenda) -> None:
    if spec.watchdog_seconds is None or worker.beat_at is None:
        return
    if agenda.is_due(worker.beat_at + spec.watchdog_seconds):
        reason = f"no WATCHDOG=1 for {spec.watchdog_seconds:g} s"
        agenda.stop(worker, _HANGING, reason, failed=True)


def _request(worker: Worker, agenda: Agenda) -> None:
    """A worker that is stuck in a request serves nobody else either."""
    if worker.overdue:
        agenda.stop(worker, _HANGING, worker.overdue, failed=True)


def _escalate(worker: Worker, agenda: Agenda) -> None:
    if worker.kill_at is not None and agenda.is_due(worker.kill_at):
        agenda.do(KillWorker(worker.id, "still there at the end of its grace period"))
    elif worker.urgings and agenda.is_due(worker.urgings[0].at):
        agenda.do(UrgeWorker(worker.id, worker.urgings[0].signal, "it is still there"))
