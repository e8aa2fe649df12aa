"""The core: facts in, reduce, plan, execute, until there is nothing left to do.

The only holder of `observed`. It knows no system call: what carries actions out is behind a port,
so tests run it on a fake and replay any history.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from sengu.model.actions import AnyAction
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.planner import initial, plan, reduce
from sengu.planner.reduce import Fact
from sengu.posix import clock

_ACTIONS_AT_ONCE = 50


class Turn(NamedTuple):
    """A fact that was taken in: what was observed before and after it, and when (UNIX time).

    `is_news`: it has just happened. Otherwise it is replayed: people know it already.
    """

    fact: Fact
    before: Observed
    after: Observed
    wall: float
    is_news: bool


# The service as settings from a configuration make it. Pure, as replaying facts is to come to the
# same.
Tune = Callable[[ServiceSpec, Mapping[str, Any]], ServiceSpec]
Listener = Callable[[Turn], None]


class Hands(Protocol):
    """What carries actions out."""

    def execute(self, action: AnyAction) -> Fact: ...


class Reporter(Protocol):
    """Who is told what happens: facts for the planner, lines for people."""

    def post(self, fact: Fact) -> None: ...
    def warn(self, text: str) -> None: ...


class Record(Protocol):
    """Where facts are written down, before anything follows from them (`server.journal`)."""

    def write(self, fact: Fact, at: float, wall: float) -> None: ...


class Core:
    """The state of the service and its machinery. `wake_at` is when to settle next (monotonic)."""

    def __init__(
        self,
        spec: ServiceSpec,
        now: Callable[[], float],
        record: Record,
        tune: Tune = lambda spec, _settings: spec,
    ) -> None:
        self._base = spec
        self._tune = tune
        self.spec = spec
        self.observed = initial(spec)
        self.wake_at: float | None = None
        self.record = record
        self._now = now
        self._inbox: deque[tuple[Fact, float, float]] = deque()
        self._listeners: list[Listener] = []

    def on_fact(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def post(self, fact: Fact) -> None:
        """Write a fact down at once, and take it in with the next `settle`."""
        at, wall = self._now(), clock.wall()
        self.record.write(fact, at, wall)
        self._inbox.append((fact, at, wall))

    def take(self, fact: Fact) -> None:
        """Take in a fact now, and before it those that wait; consequences come with `settle`."""
        self.post(fact)
        self._take_in()

    def replay(self, fact: Fact, at: float, wall: float) -> None:
        """Take in what was written down before our time."""
        self._reduce(fact, at, wall, is_news=False)

    def restore(self, observed: Observed) -> None:
        """Go on with what all facts before our time have come to."""
        self.observed = observed
        self.spec = self._tune(self._base, observed.settings)

    def settle(self, hands: Hands) -> None:
        """Let all facts have their consequences, and the consequences theirs.

        After many actions it returns, to be called again at once (`wake_at`): signals and clients
        are not to wait for the last of a thousand workers.
        """
        carried_out = 0
        while True:
            self._take_in()
            decided = plan(self.spec, self.observed, self._now())
            self.wake_at = decided.wake_at
            if not decided.actions:
                return
            if carried_out >= _ACTIONS_AT_ONCE:
                self.wake_at = self._now()
                return
            carried_out += len(decided.actions)
            for action in decided.actions:
                self.post(hands.execute(action))

    def _take_in(self) -> None:
        while self._inbox:
            fact, at, wall = self._inbox.popleft()
            self._reduce(fact, at, wall, is_news=True)

    def _reduce(self, fact: Fact, at: float, wall: float, *, is_news: bool) -> None:
        before = self.observed
        self.observed = reduce(self.spec, before, fact, at)
        if self.observed.settings != before.settings:
            self.spec = self._tune(self._base, self.observed.settings)
        turn = Turn(fact, before, self.observed, wall, is_news)
        for listener in self._listeners:
            listener(turn)
