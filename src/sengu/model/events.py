"""Facts, in the past tense. `planner.reduce` turns them into a new `Observed`.

Each is also what people read: the log, `sengu events` and the control API show them as they are.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sengu.model.observed import Outcome, Urging
from sengu.model.service import Pacing

_EXIT_STATUS = "exit status "


def _snake(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Event(msgspec.Struct, frozen=True, tag=_snake):
    """Base of all events; `type` in JSON is the class's name, as in `worker_started`."""


class DeployRequested(Event, frozen=True):
    """Somebody asked for a new generation. Its number is the last one plus one.

    `token` is a client's own name for its request: one that has lost the answer may ask again under
    the same, and nothing is deployed twice. `immediate`: old workers are not to finish their work.
    """

    by: str
    token: str = ""
    immediate: bool = False


class StepStarted(Event, frozen=True):
    """A command of `--pre-deploy` is to run before the generation is prepared; from 0 on."""

    generation: int
    step: int
    command: str


class StepStopping(Event, frozen=True):
    """The command was asked to stop; it is killed at `kill_at` (monotonic)."""

    generation: int
    kill_at: float
    reason: str


class StepKilled(Event, frozen=True):
    generation: int
    reason: str


class StepEnded(Event, frozen=True):
    """The command is done, or has not done it: `problem` is `ended with exit status 1`.

    `last_words` are the end of what it has written.
    """

    generation: int
    step: int
    problem: str = ""
    last_words: str = ""


class GenerationPreparing(Event, frozen=True):
    """What workers of the generation share is being made: a fork server loads its application."""

    generation: int
    pacing: Pacing


class GenerationPrepared(Event, frozen=True):
    """What workers of the generation share is there: environment, and application if it has one."""

    generation: int
    pacing: Pacing


class GenerationFailed(Event, frozen=True):
    """What workers of the generation share could not be made."""

    generation: int
    problem: str
    last_words: str = ""


class GenerationLost(Event, frozen=True):
    """What new workers of the generation would need is gone; those that live need nothing of it."""

    generation: int
    how: str


class WorkerRequested(Event, frozen=True):
    """The process is asked for, of the supervisor or of the generation's fork server.

    WorkerStarted tells that it lives, WorkerExited that it does not: `no process: …`.
    """

    worker: int
    generation: int
    slot: int
    reason: str


class WorkerStarted(Event, frozen=True):
    """The process is there."""

    worker: int
    generation: int
    slot: int
    pid: int
    reason: str


class StartFailed(Event, frozen=True):
    """No process was asked for: what the worker would need cannot be had."""

    generation: int
    slot: int
    problem: str


class WorkerReady(Event, frozen=True):
    worker: int
    reason: str


class WorkerBeat(Event, frozen=True):
    """The worker said WATCHDOG=1."""

    worker: int


class WorkerSaid(Event, frozen=True):
    """The worker said STATUS=…, or else EXTEND_TIMEOUT_USEC=…, while it starts."""

    worker: int
    status: str
    extends_seconds: float = 0.0


class WorkerOverdue(Event, frozen=True):
    """A request has been in the worker's hands without progress for too long."""

    worker: int
    problem: str


class WorkerWorn(Event, frozen=True):
    """The worker has served enough; it goes on until another has taken its place."""

    worker: int
    reason: str


class WorkerDraining(Event, frozen=True):
    """Connections are steered past the worker, which serves those that wait in its queues.

    It is asked to stop when they are empty, or at `until` (monotonic).
    """

    worker: int
    until: float
    reason: str


class WorkerDrained(Event, frozen=True):
    """No connection waits in the worker's queues any more. `how` they came to be empty."""

    worker: int
    how: str


class WorkerStopping(Event, frozen=True):
    """The worker was asked to stop with `signal`; it is killed at `kill_at` (monotonic).

    `failed`: it is being stopped because it missed a deadline, and that counts as a failure. Before
    it is killed it is asked by other signals, at the times in `urgings`.
    """

    worker: int
    signal: int
    kill_at: float
    reason: str
    failed: bool = False
    last_words: str = ""
    urgings: tuple[Urging, ...] = ()


class WorkerUrged(Event, frozen=True):
    """The worker, which is still there, was asked to stop once more, by another signal."""

    worker: int
    signal: int
    reason: str


class WorkerKilled(Event, frozen=True):
    worker: int
    reason: str


class WorkerExited(Event, frozen=True):
    """`how` is `exit status 1`, `signal KILL`, or `no process: …` when none came to be.

    `last_words` are the end of its stderr.
    """

    worker: int
    how: str
    last_words: str = ""

    @property
    def exit_code(self) -> int | None:
        """None when it was ended by a signal, or there was no process."""
        said, code = self.how[: len(_EXIT_STATUS)], self.how[len(_EXIT_STATUS) :]
        return int(code) if said == _EXIT_STATUS and code.isdecimal() else None


class GenerationRetired(Event, frozen=True):
    """Nothing of the generation is left."""

    generation: int


class DeployConcluded(Event, frozen=True):
    generation: int
    outcome: Outcome
    reason: str
    last_words: str = ""


class ScaleRequested(Event, frozen=True):
    workers: int
    by: str


class ScaleAdjusted(Event, frozen=True):
    """One more or one less (TTIN, TTOU)."""

    delta: int
    by: str


class RestRequested(Event, frozen=True):
    """Stop all workers but keep listening, until the next deploy or scale (WINCH)."""

    by: str


class StopRequested(Event, frozen=True):
    """The service shall end; when that was asked for before, without a lame-duck phase.

    `urgent`: without one in any case. `token`: see DeployRequested. `exit_code` is that of a worker
    by whose end it came to this.
    """

    by: str
    immediate: bool = False
    urgent: bool = False
    token: str = ""
    exit_code: int | None = None


class ServiceStopped(Event, frozen=True):
    """The last worker is gone. `failure` is why, when the service never came up."""

    failure: str = ""


class ConfigureRequested(Event, frozen=True):
    """The configuration is to be read anew: the next inquiry. `token`: see DeployRequested."""

    by: str
    token: str = ""


class ConfigureSent(Event, frozen=True):
    """The generation's fork server was told to read it."""

    generation: int
    inquiry: int


class Configured(Event, frozen=True):
    """It was read, for an `inquiry` or, with 0, because a fork server started: `settings` are those
    of its values that are, `version` is its file's. People are told by `taken` what holds now, by
    `waiting` what needs more, by `overridden` what does not count. `workers`: None is as before.
    """

    generation: int
    is_new: bool
    settings: Mapping[str, Any] = {}
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    workers: int | None = None
    pacing: Pacing = Pacing()
    inquiry: int = 0
    version: int = 0


class ConfigureFailed(Event, frozen=True):
    """It is wrong, and the one that there was goes on. `details`: a traceback, if there is one."""

    generation: int
    inquiry: int
    problem: str
    details: str = ""


class ServerAdopted(Event, frozen=True):
    """A new server has taken over from one that is gone.

    So many `workers` live and are as described, so many had `ended` meanwhile, so many processes
    live that are `unwanted` and are killed, so many are `missing`, and are asked for again.
    """

    pid: int
    workers: int
    ended: int
    unwanted: int
    missing: int


class UpgradeRequested(Event, frozen=True):
    """Server and supervisor are to go on as what is installed now. `token`: see DeployRequested."""

    by: str
    token: str = ""


class UpgradeFailed(Event, frozen=True):
    """The old version goes on."""

    problem: str


class Upgraded(Event, frozen=True):
    """The first server of the new version says so, when it has taken over."""

    version: str
    before: str
