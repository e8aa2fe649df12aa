"""The core: facts in, reduce, plan, execute, until there is nothing left to do.

The only holder of `observed`. It knows no system call: what carries actions out is behind a port,
so tests run it on a fake and replay any history.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from sengu.model.actions import AnyAction
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.planner import initial, plan, reduce
from sengu.planner.reduce import Fact

_ACTIONS_AT_ONCE = 50

# Told of each fact: the fact, what was observed before it, and after it.
Listener = Callable[[Fact, Observed, Observed], None]


class Hands(Protocol):
    """What carries actions out."""

    def execute(self, action: AnyAction) -> Fact: ...


class Reporter(Protocol):
    """Who is told what happens: facts for the planner, lines for people."""

    def post(self, fact: Fact) -> None: ...
    def warn(self, text: str) -> None: ...


class Core:
    """The state of the service and its machinery. `wake_at` is when to settle next (monotonic)."""

    def __init__(self, spec: ServiceSpec, now: Callable[[], float]) -> None:
        self.spec = spec
        self.observed = initial(spec)
        self.wake_at: float | None = None
        self._now = now
        self._inbox: deque[Fact] = deque()
        self._listeners: list[Listener] = []

    def on_fact(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def post(self, fact: Fact) -> None:
        """Take a fact in with the next `settle`."""
        self._inbox.append(fact)

    def take(self, fact: Fact) -> None:
        """Take a fact in now, before those that wait; its consequences come with `settle`."""
        before = self.observed
        self.observed = reduce(self.spec, before, fact, self._now())
        for listener in self._listeners:
            listener(fact, before, self.observed)

    def settle(self, hands: Hands) -> None:
        """Let all facts have their consequences, and the consequences theirs.

        After many actions it returns, to be called again at once (`wake_at`): signals and clients
        are not to wait for the last of a thousand workers.
        """
        carried_out = 0
        while True:
            while self._inbox:
                self.take(self._inbox.popleft())
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
