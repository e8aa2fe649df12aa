"""The core by itself: what it does with many actions at a time."""

from sengu.model import events as ev
from sengu.model.actions import AnyAction, PrepareGeneration, StartWorker
from sengu.model.service import (
    BootPolicy,
    Pacing,
    ReadyByNotify,
    RestartPolicy,
    ServiceSpec,
    StopPolicy,
)
from sengu.planner.reduce import Fact
from sengu.server.core import Core

WORKERS = 230
STOP = StopPolicy(15, 30.0)
SPEC = ServiceSpec(
    name="many",
    command=("server",),
    workers=WORKERS,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
)


class Hands:
    """Starts nothing, says that it did."""

    def __init__(self) -> None:
        self.started = 0

    def execute(self, action: AnyAction) -> Fact:
        if isinstance(action, PrepareGeneration):
            return ev.GenerationPrepared(action.generation, Pacing())
        assert isinstance(action, StartWorker)
        self.started += 1
        pid = self.started
        return ev.WorkerStarted(action.worker, action.generation, action.slot, pid, action.reason)


def test_signals_and_clients_are_heard_while_hundreds_of_workers_are_started() -> None:
    core, hands = Core(SPEC, lambda: 7.0), Hands()
    core.post(ev.DeployRequested("start"))
    rounds = 0
    while hands.started < WORKERS:
        before = hands.started
        core.settle(hands)
        assert before < hands.started <= before + 100
        rounds += 1
        assert core.wake_at == 7.0 or hands.started == WORKERS
    assert rounds > 2
    core.settle(hands)
    assert {worker.slot for worker in core.observed.workers.values()} == set(range(WORKERS))
    assert core.wake_at == 67.0
