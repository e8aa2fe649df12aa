"""What people are told: facts that changed something, and each once."""

from sengu.model import events as ev
from sengu.model.observed import Observed
from sengu.model.service import BootPolicy, ReadyByNotify, RestartPolicy, ServiceSpec, StopPolicy
from sengu.planner import initial, reduce
from sengu.planner.reduce import Fact
from sengu.server.narrate import narrate

STOP = StopPolicy(signal=15, grace_seconds=5.0)
SPEC = ServiceSpec(
    name="web",
    command=("true",),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), timeout_seconds=5.0, attempts=1),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(backoff_seconds=1.0),
)


def told(*facts: Fact) -> list[str]:
    """The sentences about all these facts."""
    observed: Observed = initial(SPEC)
    sentences = []
    for fact in facts:
        before, observed = observed, reduce(SPEC, observed, fact, 1.0)
        sentences.append(narrate(fact, before, observed))
    return [sentence for sentence in sentences if sentence is not None]


def test_a_worker_is_ready_once_however_often_it_says_so() -> None:
    ready = ev.WorkerReady(1, "said READY=1")
    sentences = told(
        ev.DeployRequested("start"),
        ev.WorkerStarted(1, 1, 0, 77, "first generation"),
        *(ready, ready),
        ev.WorkerStopping(1, 15, 6.0, "to rest"),
        ready,
        ev.WorkerExited(1, "exit status 0"),
        ready,
    )
    assert [sentence for sentence in sentences if "is ready" in sentence] == [
        "worker 0 of generation 1 (pid 77) is ready: said READY=1"
    ]
