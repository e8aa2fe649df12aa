"""What is to be done, in the imperative. The shell executes each and answers with an event.

Every action carries its reason, and that reason is what people read.
"""

import msgspec

from sengu.model.observed import Outcome, Urging


class Action(msgspec.Struct, frozen=True):
    """Base of all actions."""


class RequestDeploy(Action, frozen=True):
    by: str


class RequestStop(Action, frozen=True):
    """End the service, with the exit code of a worker that is not to be replaced."""

    by: str
    exit_code: int


class StartStep(Action, frozen=True):
    """Run the command of that number before the generation is prepared."""

    generation: int
    step: int
    reason: str


class StopStep(Action, frozen=True):
    generation: int
    kill_at: float
    reason: str


class KillStep(Action, frozen=True):
    generation: int
    reason: str


class PrepareGeneration(Action, frozen=True):
    """What is read with it is the answer to `inquiry` too, unless that is 0."""

    generation: int
    reason: str
    inquiry: int = 0


class AbandonPreparation(Action, frozen=True):
    """What is being prepared takes too long, and is not waited for any more."""

    generation: int
    reason: str


class AskConfiguration(Action, frozen=True):
    """Have the generation's fork server read the configuration anew."""

    generation: int
    inquiry: int
    reason: str


class AbandonInquiry(Action, frozen=True):
    """That takes too long: the fork server is in the way of new workers, and is ended."""

    generation: int
    inquiry: int
    reason: str


class RetireGeneration(Action, frozen=True):
    generation: int
    reason: str


class StartWorker(Action, frozen=True):
    worker: int
    generation: int
    slot: int
    reason: str


class DeclareReady(Action, frozen=True):
    """Time alone has made it ready (ReadyAfterDelay)."""

    worker: int
    reason: str


class DrainWorker(Action, frozen=True):
    """Steer connections past it. It is asked to stop when its queues are empty, or at `until`."""

    worker: int
    until: float
    reason: str


class StopWorker(Action, frozen=True):
    worker: int
    signal: int
    kill_at: float
    reason: str
    failed: bool = False
    urgings: tuple[Urging, ...] = ()


class UrgeWorker(Action, frozen=True):
    """Ask it to stop once more, by another signal."""

    worker: int
    signal: int
    reason: str


class KillWorker(Action, frozen=True):
    worker: int
    reason: str


class ConcludeDeploy(Action, frozen=True):
    generation: int
    outcome: Outcome
    reason: str
    last_words: str = ""


class FinishService(Action, frozen=True):
    failure: str
    reason: str


AnyAction = (
    RequestDeploy
    | RequestStop
    | StartStep
    | StopStep
    | KillStep
    | PrepareGeneration
    | AbandonPreparation
    | AskConfiguration
    | AbandonInquiry
    | RetireGeneration
    | StartWorker
    | DeclareReady
    | DrainWorker
    | StopWorker
    | UrgeWorker
    | KillWorker
    | ConcludeDeploy
    | FinishService
)
