"""What is known of the world: generations, workers, slots, the deploy under way.

Values only. They are changed by `planner.reduce` and by nothing else.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sengu.model.service import Pacing


class Phase(enum.StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLED = "killed"


_WANTED = (Phase.STARTING, Phase.READY)


class Outcome(enum.StrEnum):
    """How a deploy ended."""

    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled back"
    SUPERSEDED = "superseded"


class Urging(msgspec.Struct, frozen=True):
    """It is asked to stop once more, by `signal`, if it is still there `at` (monotonic seconds)."""

    signal: int
    at: float


class Worker(msgspec.Struct, frozen=True):
    """The process in a slot. Times are monotonic seconds.

    `pid` is 0 until there is a process: `started_at` is when that came to be, and as long as there
    is none, when it was asked for. `overdue` says what the worker is stuck in, `worn` why it is to
    be replaced. While it drains, connections are steered past it: `drain_until` is how long its
    queues may take to be empty, `drained` says how they came to be, `reason` why it is to go.
    `urgings` are still to come, before `kill_at`. `condemned` is why it was to end though it was
    wanted, or was not given more time. `extended_until`: so long it has asked not to be expected.
    """

    id: int
    generation: int
    slot: int
    pid: int
    phase: Phase
    started_at: float
    ready_at: float | None = None
    beat_at: float | None = None
    kill_at: float | None = None
    stop_signal: int = 0
    status: str = ""
    overdue: str = ""
    worn: str = ""
    drain_until: float | None = None
    drained: str = ""
    reason: str = ""
    urgings: tuple[Urging, ...] = ()
    condemned: str = ""
    extended_until: float = 0.0

    @property
    def is_wanted(self) -> bool:
        """Nobody has asked it to stop, nor is it drained to be asked."""
        return self.phase in _WANTED


class Slot(msgspec.Struct, frozen=True):
    """The account of one slot of one generation: how often its workers died, and of what.

    `failures` are those in a row. A slot without a failure has no account. It is closed once its
    worker has exited with a code that forbids another (`RestartPolicy.final_codes`): with this one.
    """

    restarts: int = 0
    failures: int = 0
    retry_at: float = 0.0
    last_failure: str = ""
    final_code: int | None = None

    @property
    def is_closed(self) -> bool:
        return self.final_code is not None


class Step(msgspec.Struct, frozen=True):
    """A command that runs before its generation is prepared: the `number`th, from 0 on.

    With `kill_at` it was asked to stop, because of `problem`.
    """

    number: int
    command: str
    since: float
    kill_at: float | None = None
    is_killed: bool = False
    problem: str = ""

    @property
    def title(self) -> str:
        return f"--pre-deploy {self.command!r}"


class Inquiry(msgspec.Struct, frozen=True):
    """Somebody wants the configuration to be read anew; the fork server was told at `sent_at`."""

    number: int
    sent_at: float | None = None


class Generation(msgspec.Struct, frozen=True):
    """All workers of one deploy. `retire_at` is set once another generation serves instead.

    No worker can be started before it is `prepared`, which comes after its steps. `failures`
    to prepare it are those in a row; the next try comes at `retry_at`. No worker is started before
    `next_start_at`. `immediate`: those before it are to go quickly. `configuration` is the version
    of what its workers have been told of.
    """

    number: int
    prepared: bool = False
    preparing_since: float | None = None
    failures: int = 0
    retry_at: float = 0.0
    pacing: Pacing = Pacing()
    retire_at: float | None = None
    steps_done: int = 0
    step: Step | None = None
    next_start_at: float = 0.0
    immediate: bool = False
    inquiry: Inquiry | None = None
    configuration: int = 0


class Deploy(msgspec.Struct, frozen=True):
    """The deploy under way, named by the generation that it brings.

    `wakes`: the service was resting when it was asked for. The old generation rests on meanwhile,
    and so does the service if the deploy fails. `token` is the name of the request (events).
    """

    generation: int
    requested_by: str
    failures: int = 0
    last_failure: str = ""
    last_words: str = ""
    has_stopped_old: bool = False
    wakes: bool = False
    token: str = ""


class Stop(msgspec.Struct, frozen=True):
    """The service is being stopped; nobody lives beyond `kill_at` (monotonic seconds).

    `failure` is why, when it never came up. `exit_code` is that of the worker whose end it is.
    `is_over`: nothing is left to be done. Until
    `lame_until` workers serve on, so that whoever sends clients here can learn that it ends.
    `token` is the name of the request (events).
    """

    reason: str
    kill_at: float
    immediate: bool = False
    failure: str = ""
    is_over: bool = False
    lame_until: float | None = None
    token: str = ""
    exit_code: int | None = None


class Observed(msgspec.Struct, frozen=True):
    """Everything the planner knows. `current` is the generation that serves, 0 before the first.

    `concluded_at` is when the last deploy ended, well or not (monotonic seconds). `settings` are
    what the configuration says about the service, as it was read last, `inquiries` how often
    somebody has asked for that.
    """

    wanted: int
    current: int = 0
    last_generation: int = 0
    next_worker_id: int = 1
    generations: Mapping[int, Generation] = {}
    workers: Mapping[int, Worker] = {}
    slots: Mapping[tuple[int, int], Slot] = {}
    deploy: Deploy | None = None
    superseded: tuple[int, ...] = ()
    concluded_at: float = 0.0
    rested_from: int | None = None
    stop: Stop | None = None
    settings: Mapping[str, Any] = {}
    inquiries: int = 0

    def workers_of(self, generation: int) -> Iterator[Worker]:
        """Workers of `generation`, in the order in which they were started."""
        return (worker for worker in self.workers.values() if worker.generation == generation)

    def ready_count(self) -> int:
        """Workers of any generation that can serve and were not asked to stop."""
        return sum(worker.phase is Phase.READY for worker in self.workers.values())

    def live_count(self) -> int:
        """Workers of any generation that were not asked to stop."""
        return sum(worker.is_wanted for worker in self.workers.values())

    def slot(self, generation: int, slot: int) -> Slot:
        return self.slots.get((generation, slot), _NEW_SLOT)


_NEW_SLOT = Slot()
