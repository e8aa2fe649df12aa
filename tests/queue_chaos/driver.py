"""Carries the steps of a run out, until all numbers were handled, and checks what came of it."""

import enum
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from tests.broker_nodes import Node
from tests.chaos.accounts import Death, Holdings, Ledger, findings, settle
from tests.chaos.orders import Chronicle, Clerk
from tests.chaos.plan import Kill, Order, Role
from tests.chaos.tree import of_role, standing
from tests.queue_chaos.plan import Step, steps
from tests.queue_chaos.publishing import Publishing
from tests.queue_chaos.record import Break, Record, missing, unexplained
from tests.support import Instance
from tests.system.puppets import wait_until

_DEPLOY_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_SAY_SECONDS = 10.0
_STILL_SECONDS = 45.0


class Outage(enum.Enum):
    """How the broker ends, before it starts again."""

    STOP = enum.auto()
    KILL = enum.auto()


class Plan(NamedTuple):
    """What is asked for. Between two outages as much is handled as before the first, and after
    the last. `say` gets how far it is.
    """

    seed: int
    messages: int
    workers: int
    outages: tuple[Outage, ...]
    say: Callable[[str], None]


class Driver:
    """One run."""

    def __init__(
        self,
        instance: Instance,
        broker: Node,
        record: Record,
        publishing: Publishing,
        plan: Plan,
    ) -> None:
        self._instance = instance
        self._broker = broker
        self._record = record
        self._publishing = publishing
        self._messages = plan.messages
        self._workers = plan.workers
        self._steps = steps(plan.seed, _DEPLOY_SECONDS)
        self._next = next(self._steps)
        self._outages = plan.outages
        self._say = plan.say
        self._say_at = 0.0
        self._ledger = Ledger()
        self._clerk = Clerk(instance)
        self._chronicle = Chronicle(instance)
        self._breaks: list[Break] = []
        self._began = time.monotonic()
        self.history: list[str] = []  # what was done when, for people

    def run(self) -> list[str]:
        """What is wrong."""
        try:
            settle(self._instance, self._workers, self._chronicle, self._ledger)
            before = Holdings.of(self._instance.pid)
            self._began = time.monotonic()
            parts = len(self._outages) + 1
            for part, outage in enumerate(self._outages, 1):
                self._handle(self._messages * part // parts)
                self._restart_broker(outage)
            self._handle(self._messages)
            self._wait_empty()
            self._deploy()
            self._clerk.finish()
            status = settle(self._instance, self._workers, self._chronicle, self._ledger)
            self._wait_holdings(before)
            self._record.read()
            problems = [
                *findings(self._instance, status, self._chronicle),
                *unexplained(self._record, self._breaks, self._publishing.batches),
            ]
        except (AssertionError, ProcessLookupError, pytest.fail.Exception) as problem:
            problems = [str(problem)]
        missed = missing(self._record, self._messages)
        return [*problems, *self._clerk.problems, *missed]

    def close(self) -> None:
        """After the instance has ended."""
        self._clerk.close()
        self._chronicle.close()

    def summary(self) -> str:
        ledger, record = self._ledger, self._record
        victims = Counter(death.role for death in ledger.deaths)
        roles = ", ".join(f"{number} of {role}s" for role, number in sorted(victims.items()))
        seconds = time.monotonic() - self._began
        failed = sum(not job.is_done for job in record.jobs)
        twice = sum(times > 1 for times in record.done.values())
        return (
            f"{seconds:.0f} s: {self._publishing.confirmed} published, {len(record.done)} handled, "
            f"{twice} of them more than once; {failed} failures, {record.cut_off} jobs cut off; "
            f"{ledger.deploys} deploys, {len(ledger.deaths)} kills ({roles or 'none'})"
        )

    def _handle(self, count: int) -> None:
        self._make_trouble(lambda: len(self._record.done) >= count)

    def _make_trouble(self, until: Callable[[], object]) -> None:
        """Raises AssertionError when nothing is handled any more."""
        count, moved_at = 0, time.monotonic()
        while not until():
            now = time.monotonic()
            if now >= self._began + self._next.at_seconds:
                self._do(self._next)
                self._next = next(self._steps)
            threading.Event().wait(_LOOK_SECONDS)
            self._record.read()
            if len(self._record.done) > count:
                count, moved_at = len(self._record.done), now
            if now >= self._say_at:
                self._say_at = now + _SAY_SECONDS
                self._say(self.summary())
            assert now - moved_at < _STILL_SECONDS, f"{count} were handled, and no more are"

    def _do(self, step: Step) -> None:
        if isinstance(step.act, Kill):
            self._kill(*step.act)
        else:
            self._deploy()

    def _deploy(self) -> None:
        self._note("deploy")
        self._ledger.orders[Order.RELOAD] += 1
        self._clerk.reload()

    def _kill(self, role: Role, place: int) -> None:
        """If there is one of the role."""
        found = of_role(self._instance.pid, role)
        if not found:
            return
        victim = found[place % len(found)]
        began = time.monotonic()
        with suppress(ProcessLookupError), standing(victim.pid) as pidfd:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            now = time.monotonic()
            if role is Role.WORKER:
                self._breaks.append(Break(victim.pid, began, now))
            self._ledger.deaths.append(Death(victim.pid, role, now, frozenset()))
            self._note(f"KILL of {role} {victim.pid}")

    def _restart_broker(self, outage: Outage) -> None:
        """It ends with the thread that has started it, so that is ours."""
        began = time.monotonic()
        self._note(f"{outage} of the broker")
        end = self._broker.stop if outage is Outage.STOP else self._broker.kill
        ending = threading.Thread(target=end)
        ending.start()
        self._make_trouble(lambda: not ending.is_alive())
        with self._broker.starting():
            self._make_trouble(self._broker_answers)
        self._note("the broker is back")
        self._breaks.append(Break(0, began, time.monotonic()))

    def _broker_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._broker.port)) == 0

    def _wait_empty(self) -> None:
        """All queues, also of what waits for something in the broker."""
        lacks: list[str] = []

        def is_empty() -> bool:
            lacks[:] = self._filled()
            return not lacks

        wait_until(is_empty, lacks)

    def _filled(self) -> Iterator[str]:
        for queue in self._broker.manage("GET", f"queues/{self._broker.vhost}"):
            if queue.get("messages", 1):
                yield f"{queue['name']} has {queue.get('messages')} messages"

    def _wait_holdings(self, before: Holdings) -> None:
        problems: list[str] = []

        def is_same() -> bool:
            problems[:] = Holdings.of(self._instance.pid).compare(before)
            return not problems

        wait_until(is_same, problems)

    def _note(self, text: str) -> None:
        now = time.time()
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        self.history.append(f"{moment}.{int(now * 1000) % 1000:03d} chaos: {text}")
