"""Suspects, of which a process has one at a time, and runs nothing else meanwhile.

So who dies with one knows what of. One is taken only when nothing else runs, as what a process has
when it dies is charged for that. They are asked for, one after the other, and not subscribed to: a
broker would send one of each consumer. Imported by `process`.
"""

from collections.abc import Callable, Sequence

from sengu.consumers.worker.gate import Gate
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.runners import Runner
from sengu.consumers.worker.subscription import Subscription
from sengu.posix import clock

_PATIENCE_SECONDS = 60.0
_MOVE_SECONDS = 15.0


class Ward:
    """`start` begins one; `is_in_hand` tells whether it has not ended yet.

    No job at all begins before `begin`, when the worker was said to be ready: of one that is stuck
    before that nobody would know.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        gate: Gate,
        start: Callable[[Job, Runner], None],
        is_in_hand: Callable[[Job], bool],
    ) -> None:
        self._subscriptions = [one for one in subscriptions if one.spec.ack_late]
        self._gate = gate
        self._start = start
        self._is_in_hand = is_in_hand
        self._next = 0
        self._look_at = 0.0
        self._has_begun = False
        self._wanted: Subscription | None = None
        self._wanted_since = 0.0
        self._was_asked = False
        self._taken: tuple[Job, Runner] | None = None
        self._running: Job | None = None

    def begin(self) -> None:
        self._has_begun = True

    def look(self) -> None:
        """Whether the next of the consumers has any, unless there is one."""
        is_busy = self._wanted or self._taken or self._running
        if is_busy or not self._subscriptions or clock.monotonic() < self._look_at:
            return
        if not any(one.is_asking for one in self._subscriptions):
            self._next += 1
            self._subscriptions[self._next % len(self._subscriptions)].look_for_suspects(self._want)

    def proceed(self) -> None:
        """After each round, when what was settled is acknowledged."""
        if not self._has_begun:
            return
        self._forget_what_is_over()
        if self._wanted is not None:
            self._gate.close()
            self._take()
        if self._must_be_closed():
            self._gate.close()
        else:
            self._gate.open()
        if self._taken is not None:
            self._running = self._taken[0]
            self._start(*self._taken)
            self._taken = None

    def _want(self, subscription: Subscription) -> None:
        self._wanted, self._wanted_since, self._was_asked = subscription, clock.monotonic(), False

    def _take(self) -> None:
        """Ask for it when the others have ended. They may take too long for that."""
        assert self._wanted is not None
        if self._was_asked:
            if not self._wanted.is_asking:  # somebody else has it
                self._wanted = None
        elif self._gate.is_empty:
            self._was_asked = True
            self._wanted.ask_for_suspect(self._accept)
        elif clock.monotonic() > self._wanted_since + _PATIENCE_SECONDS:
            self._wanted = None
            self._look_at = clock.monotonic() + _PATIENCE_SECONDS

    def _accept(self, job: Job, runner: Runner) -> None:
        self._wanted, self._taken = None, (job, runner)

    def _forget_what_is_over(self) -> None:
        if self._running is not None and not self._is_in_hand(self._running):
            self._running = None
            self.look()
        if self._taken is not None and self._taken[0].is_over:  # with its connection
            self._taken = None
        if self._wanted is not None and not self._wanted.is_subscribed:
            self._wanted = None

    def _must_be_closed(self) -> bool:
        """For a suspect, or one that is on its way from queue to queue. If a queue does not take
        it, that is not to keep the others.
        """
        if self._wanted or self._taken or self._running:
            return True
        times = [one.moves_suspects_since for one in self._subscriptions]
        now = clock.monotonic()
        return any(since is not None and now < since + _MOVE_SECONDS for since in times)
