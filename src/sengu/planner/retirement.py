"""How a worker is asked to go that another has replaced. Imported by `retire` and `drain`."""

from sengu.model.observed import Observed, Worker
from sengu.model.service import ServiceSpec, StopPolicy

# Those of an immediate deploy are not to finish what they do, but to put down what they hold.
_AT_ONCE = StopPolicy(3, 2.0)  # SIGQUIT


def retirement(spec: ServiceSpec, observed: Observed, worker: Worker) -> StopPolicy:
    """As the service says; or quickly, when the generation that replaces it was asked for so."""
    return _AT_ONCE if is_hurried(observed, worker) else spec.retire


def is_hurried(observed: Observed, worker: Worker) -> bool:
    """Whether a deploy that is to be immediate has replaced it, or is about to."""
    coming = observed.current if observed.deploy is None else observed.deploy.generation
    return any(
        worker.generation < number and observed.generations[number].immediate
        for number in {observed.current, coming} - {0}
    )


def is_late(observed: Observed, worker: Worker, now: float) -> bool:
    """Whether it was told to take its time, by a deploy before the one that is immediate."""
    is_replaced = worker.generation < observed.current and is_hurried(observed, worker)
    if not is_replaced or worker.kill_at is None:
        return False
    return worker.kill_at > now + _AT_ONCE.grace_seconds
