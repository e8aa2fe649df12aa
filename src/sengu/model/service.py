"""The spec: what is to run, and by which rules it is started, checked, replaced and stopped."""

import enum

import msgspec

from sengu.model.application import Application
from sengu.model.container import Container

# Beyond what one machine can run. A slip of the keyboard must not fork until nothing else can.
MAX_WORKERS = 10_000


class ReadyAfterDelay(msgspec.Struct, frozen=True, tag="delay"):
    """Ready when still alive after `seconds`: all one can know of a program that says nothing."""

    seconds: float


class ReadyByNotify(msgspec.Struct, frozen=True, tag="notify"):
    """Ready when it sends READY=1 to its NOTIFY_SOCKET (sd_notify(3))."""


class ReadyByProbe(msgspec.Struct, frozen=True, tag="probe"):
    """Ready when the worker itself accepts a connection, or answers `path` with 2xx or 3xx."""

    path: str | None = None


class ReadyByJoin(msgspec.Struct, frozen=True, tag="join"):
    """Ready when it listens where the service does, by sockets of its own (`address.SelfBound`)."""


Readiness = ReadyAfterDelay | ReadyByNotify | ReadyByProbe | ReadyByJoin


class Surge(msgspec.Struct, frozen=True, tag="surge"):
    """All new workers come up beside the old ones, then the old ones go."""


class Rolling(msgspec.Struct, frozen=True, tag="rolling"):
    """Slot by slot: at most `max_surge` workers too many, at most `max_unavailable` too few.

    Not both can be 0. The candidate comes first in any case, though it may be one too many.
    """

    max_surge: int = 1
    max_unavailable: int = 0


Strategy = Surge | Rolling


class Urge(msgspec.Struct, frozen=True):
    """Ask once more, by another signal, who is still there so long after the first one."""

    signal: int
    after_seconds: float


class StopPolicy(msgspec.Struct, frozen=True):
    """Ask with `signal`, then by each of `steps`, which are in their order; who is still there
    after `grace_seconds` is killed.
    """

    signal: int
    grace_seconds: float
    steps: tuple[Urge, ...] = ()


class BootPolicy(msgspec.Struct, frozen=True):
    """How a worker comes to be ready, and how often a generation may fail to."""

    readiness: Readiness
    timeout_seconds: float
    attempts: int


class RestartPolicy(msgspec.Struct, frozen=True):
    """Back-off of a slot whose workers keep dying.

    The first replacement starts at once, the next after `backoff_seconds`, doubled each time up
    to `backoff_max_seconds`. A worker that was ready for `stable_seconds` clears the account.

    One that exits with one of `final_codes` is not replaced: its slot is closed. When all are, the
    service ends with that code; when the first is, if `ends_at_once`.
    """

    backoff_seconds: float
    backoff_max_seconds: float = 30.0
    stable_seconds: float = 10.0
    final_codes: tuple[int, ...] = ()
    ends_at_once: bool = False

    def delay_seconds(self, failures: int) -> float:
        """How long a slot waits after `failures` in a row."""
        if failures <= 1:
            return 0.0
        doublings = min(failures - 2, 32)  # 2**32 is beyond any cap; keeps the power small
        return min(self.backoff_max_seconds, self.backoff_seconds * float(2**doublings))


class StartPolicy(msgspec.Struct, frozen=True):
    """Workers of a generation are started `delay_seconds` apart, more or less: `jitter` is the part
    by which it varies.
    """

    delay_seconds: float = 0.0
    jitter: float = 0.0


class SignalProfile(enum.StrEnum):
    """What signals to the main pid mean: each peer's users keep their habits (docs/signals.md)."""

    DEFAULT = "default"
    UNICORN = "unicorn"
    SERVERENGINE = "serverengine"


class OnServerLoss(enum.StrEnum):
    """What becomes of the workers when the main process itself is killed, and with it all that
    looks after them. `stop`: the kernel sends each its stop signal. `keep`: they go on alone.
    """

    STOP = "stop"
    KEEP = "keep"


class ServiceSpec(msgspec.Struct, frozen=True):
    """One service. `retire` stops the workers of an old generation, `stop` those of the last.

    With an `application`, workers are forked by a fork server that has loaded it, and `command` is
    only what people are shown; they look after themselves `on_server_loss`.

    With `drain_seconds` each worker has queues of its own: before a ready one is asked to stop,
    those who wait in them are served, and that may take so long.

    When it shall end, it first serves on for `lame_duck_seconds`, so that others learn of it.

    With a `container`, a worker is the runner of one, and `command` is only what people are shown.

    The commands of `pre_deploy` run before each generation, one after the other; each may take
    `pre_deploy_seconds`.
    """

    name: str
    command: tuple[str, ...]
    workers: int
    boot: BootPolicy
    retire: StopPolicy
    stop: StopPolicy
    restart: RestartPolicy
    strategy: Strategy = Surge()
    watchdog_seconds: float | None = None
    application: Application | None = None
    on_server_loss: OnServerLoss = OnServerLoss.STOP
    drain_seconds: float | None = None
    lame_duck_seconds: float = 0.0
    pre_deploy: tuple[tuple[str, ...], ...] = ()
    pre_deploy_seconds: float = 600.0
    container: Container | None = None
    start: StartPolicy = StartPolicy()


class Pacing(msgspec.Struct, frozen=True):
    """What a generation's own environment may decide (`--envdir` is read for each of them)."""

    kill_old_delay_seconds: float = 0.0
    auto_restart_seconds: float | None = None
