"""Suspects, of which a process has one at a time, and runs nothing else meanwhile.

So who dies with one knows what of. They are asked for, one after the other, and not subscribed to:
a broker would send one of each consumer. Imported by `process`.
"""

from collections.abc import Callable, Sequence

from sengu.consumers.gate import Gate
from sengu.consumers.job import Job
from sengu.consumers.runners import Runner
from sengu.consumers.subscription import Subscription


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
        self._turn = 0
        self._has_begun = False
        self._waiting: tuple[Job, Runner] | None = None
        self._running: Job | None = None

    def begin(self) -> None:
        self._has_begun = True

    def look(self) -> None:
        """Ask for the next one, of the next consumer, unless there is one."""
        is_free = self._waiting is None and self._running is None
        if (
            is_free
            and self._subscriptions
            and not any(one.is_asking for one in self._subscriptions)
        ):
            self._turn += 1
            self._subscriptions[self._turn % len(self._subscriptions)].ask_for_suspect(self.take)

    def take(self, job: Job, runner: Runner) -> None:
        """There is one. Others that have begun end first."""
        self._waiting = job, runner

    def proceed(self) -> None:
        """After each round, when what was settled is acknowledged: begin the suspect if nothing
        else runs; let others begin if there is none, and none on its way from queue to queue.
        """
        if not self._has_begun:
            return
        if self._running is not None and not self._is_in_hand(self._running):
            self._running = None
            self.look()
        if self._waiting is not None and self._waiting[0].is_over:  # with its connection
            self._waiting = None
        is_needed = self._waiting is not None or self._running is not None
        if is_needed or any(one.is_moving_suspects for one in self._subscriptions):
            self._gate.close()
        else:
            self._gate.open()
        if self._waiting is not None and self._gate.is_empty:
            job, runner = self._waiting
            self._waiting, self._running = None, job
            self._start(job, runner)
