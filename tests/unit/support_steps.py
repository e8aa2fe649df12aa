"""What a history of the fake world is written in: fates of processes, and steps."""

import msgspec

from sengu.model import events as ev
from sengu.model.application import Application, Wear
from sengu.model.service import (
    BootPolicy,
    Pacing,
    ReadyByNotify,
    RestartPolicy,
    ServiceSpec,
    StopPolicy,
)
from sengu.planner.reduce import Fact

TERM = 15
USR1 = 10
QUIT = 3
FINAL = 42  # an exit code after which nothing is tried again, where a service says so


def make_spec(**changes: object) -> ServiceSpec:
    """A service of two workers that notify; three attempts, 20 s to be ready, 10 s of grace."""
    spec = ServiceSpec(
        name="fake",
        command=("fake",),
        workers=2,
        boot=BootPolicy(ReadyByNotify(), timeout_seconds=20.0, attempts=3),
        retire=StopPolicy(TERM, grace_seconds=10.0),
        stop=StopPolicy(TERM, grace_seconds=10.0),
        restart=RestartPolicy(backoff_seconds=1.0),
    )
    return msgspec.structs.replace(spec, **changes)


def make_application_spec(wear: Wear | None = None, **changes: object) -> ServiceSpec:
    """The same for an application, which a fork server loads."""
    application = Application(
        engine="fake", target="fake:app", wear=wear or Wear(), is_configured=True
    )
    return make_spec(application=application, **changes)


class Fate(msgspec.Struct, frozen=True):
    """What becomes of a process. Seconds from its start, or from the stop signal; None: never."""

    ready_after: float | None = 0.0
    dies_after: float | None = None
    exits_after: float | None = 0.0
    beats_until: float | None = None  # None: for ever, if the service has a watchdog
    yields_after: float | None = None  # from the second signal, if that is another
    dies_with: int = 1


HEALTHY = Fate()
SLOW = Fate(ready_after=5.0)
BROKEN = Fate(ready_after=None, dies_after=0.0)
SILENT = Fate(ready_after=None)
STUBBORN = Fate(exits_after=None)
TARDY = Fate(ready_after=5.0, exits_after=10.0)
LINGERING = Fate(exits_after=5.0)
HANGING = Fate(beats_until=0.0, exits_after=None)
RELUCTANT = Fate(exits_after=None, yields_after=0.0)
FINISHED = Fate(dies_after=0.0, dies_with=FINAL)


class Next(msgspec.Struct, frozen=True):
    """The next `count` processes have this fate; those after them are healthy."""

    fate: Fate
    count: int = 1


class Pace(msgspec.Struct, frozen=True):
    """Generations prepared from now on find this in their environment."""

    pacing: Pacing


class RefuseForks(msgspec.Struct, frozen=True):
    """The next `count` processes are refused by the system."""

    count: int


class RunOut(msgspec.Struct, frozen=True):
    """The next `count` workers lack what each needs before it can be asked for."""

    count: int


class SlowForks(msgspec.Struct, frozen=True):
    """The next `count` forks of fork servers take so long (None: for ever)."""

    seconds: float | None
    count: int = 1


class Crowd(msgspec.Struct, frozen=True):
    """The queues of the next `count` workers that drain take so long to be empty (None: for ever).

    Those of the others are at once.
    """

    seconds: float | None
    count: int = 1


class SpoilGenerations(msgspec.Struct, frozen=True):
    """The next `count` generations can not be prepared."""

    count: int


class Loading(msgspec.Struct, frozen=True):
    """The next `count` applications take so long to load (None: for ever), and may then fail."""

    seconds: float | None
    fails: bool = False
    count: int = 1


class Command(msgspec.Struct, frozen=True):
    """The next `count` commands before generations take so long (None: for ever), and may fail.

    One that is asked to stop takes `exits_after` (None: it does not).
    """

    seconds: float | None
    fails: bool = False
    exits_after: float | None = 0.0
    count: int = 1


class LoseForkServers(msgspec.Struct, frozen=True):
    """Every fork server dies, in the middle of whatever it does."""


class LoseServer(msgspec.Struct, frozen=True):
    """The server is killed so many instants from now, each before or after something it does.

    The next one is there `away_seconds` later.
    """

    after: int = 0
    away_seconds: float = 0.0


class WearOut(msgspec.Struct, frozen=True):
    """A worker has served enough: number `which` of the living, counted round and round."""

    which: int = 0


class Stick(msgspec.Struct, frozen=True):
    """A worker is stuck in a request: number `which` of the living, counted round and round."""

    which: int = 0


class Heal(msgspec.Struct, frozen=True):
    """Faults cease: processes from now on are healthy, nothing is refused, nobody is in haste."""


class Die(msgspec.Struct, frozen=True):
    """A process dies at once: number `which` of the living, counted round and round."""

    which: int = 0


class Wait(msgspec.Struct, frozen=True):
    """Time passes, and everything happens in its moment."""

    seconds: float


class Stall(msgspec.Struct, frozen=True):
    """Time passes, but the server sleeps through it and learns everything at the end."""

    seconds: float


class Wake(msgspec.Struct, frozen=True):
    """Time passes to the moment at which the planner wants to look again."""


class Ask(msgspec.Struct, frozen=True):
    """These facts arrive from outside, together."""

    facts: tuple[Fact, ...]


# What is to come.
Future = (
    Next
    | Pace
    | RefuseForks
    | RunOut
    | SlowForks
    | Crowd
    | SpoilGenerations
    | Loading
    | Command
    | LoseServer
    | Heal
)
Step = Future | LoseForkServers | WearOut | Stick | Die | Wait | Stall | Wake | Ask


def hup(times: int = 1, *, immediate: bool = False) -> Ask:
    return Ask((ev.DeployRequested("HUP", immediate=immediate),) * times)


def configure(times: int = 1) -> Ask:
    return Ask((ev.ConfigureRequested("test"),) * times)


def scale(workers: int) -> Ask:
    return Ask((ev.ScaleRequested(workers, "test"),))


def adjust(delta: int) -> Ask:
    return Ask((ev.ScaleAdjusted(delta, "TTIN" if delta > 0 else "TTOU"),))


def winch() -> Ask:
    return Ask((ev.RestRequested("WINCH"),))


def stop_seconds(spec: ServiceSpec) -> float:
    """How long a stop may take."""
    return spec.lame_duck_seconds + spec.stop.grace_seconds


def stop(immediate: bool = False) -> Ask:
    return Ask((ev.StopRequested("QUIT" if immediate else "TERM", immediate),))
