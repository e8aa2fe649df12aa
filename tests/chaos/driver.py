"""Carries the steps of a run out on an instance under load, and has them checked in its pauses."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.accounts import Death, Holdings, Ledger, findings, load_findings, settle
from tests.chaos.load import Load
from tests.chaos.orders import Chronicle, Clerk
from tests.chaos.plan import Freeze, Kill, Order, Pause, Role, Scale, Step
from tests.chaos.tree import Process, in_hand, of_role, standing
from tests.support import Instance, Sengu
from tests.system.puppets import wait_until

HERE = Path(__file__).parent
_ANSWERS = 50  # that a pause waits for
_SIGNALS = {
    Order.HUP: signal.SIGHUP,
    Order.USR2: signal.SIGUSR2,
    Order.TTIN: signal.SIGTTIN,
    Order.TTOU: signal.SIGTTOU,
}


class Outcome(NamedTuple):
    """`problems` are the findings of the first pause that had any."""

    problems: list[str]
    summary: str


def start(sengu: Sengu, port: int, workers: int, *options: str) -> Instance:
    """An instance of the application that can be checked, when it is ready."""
    return sengu.serve(
        "application:app",
        *("--listen", f"127.0.0.1:{port}", "--workers", str(workers)),
        # Deaths are ours and no fault of the application: no long waits for them.
        *("--interval", "0.001", "--attempts", "1000", *options),
        cwd=HERE,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    ).wait_ready()


class Driver:
    """One run."""

    def __init__(
        self, instance: Instance, load: Load, workers: int, say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._instance = instance
        self._load = load
        self._workers = workers
        self._ledger = Ledger()
        self._clerk = Clerk(instance)
        self._chronicle = Chronicle(instance)
        self._thaws: list[threading.Timer] = []
        self._began = time.monotonic()
        self.history: list[str] = []  # what was done when, for people

    def run(self, steps: Iterable[Step]) -> Outcome:
        try:
            self._check(self._workers)
            before = Holdings.of(self._instance.pid)
            for step in steps:
                time.sleep(step.after_seconds)  # the moment is part of the plan
                self._do(step)
            self._compare(before)
        except (AssertionError, ProcessLookupError, pytest.fail.Exception) as problem:
            return Outcome([str(problem), *self._clerk.problems], self._summary())
        finally:
            self._thaw()
        return Outcome([], self._summary())

    def close(self) -> None:
        """After the instance has ended."""
        self._clerk.close()
        self._chronicle.close()

    def _note(self, text: str) -> None:
        now = time.time()
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        self.history.append(f"{moment}.{int(now * 1000) % 1000:03d} chaos: {text}")

    def _do(self, step: Step) -> None:
        match step.act:
            case Kill(role, place):
                while not self._kill(role, place):  # it has ended by itself just now
                    pass
            case Freeze(role, place, seconds):
                self._freeze(role, place, seconds)
            case Scale(workers):
                self._note(f"scale to {workers}")
                self._clerk.scale(workers)
            case Pause(workers):
                self._check(workers)
            case order:
                self._order(order)

    def _kill(self, role: Role, place: int) -> bool:
        """Whether somebody was hit."""
        role, victim = self._victim(role, place)
        with suppress(ProcessLookupError), standing(victim.pid) as pidfd:
            death = Death(victim.pid, role, time.monotonic(), in_hand(victim.pid, pidfd))
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self._ledger.deaths.append(death)
            self._note(f"KILL of {role} {victim.pid}, which had {sorted(death.ports)} in hand")
            return True
        return False

    def _freeze(self, role: Role, place: int, seconds: float) -> None:
        if role is Role.SUPERVISOR:
            self._wait_heard()
        role, victim = self._victim(role, place)
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(victim.pid)
            timer = threading.Timer(seconds, _go_on, (pidfd,))
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            timer.start()
            self._note(f"STOP of {role} {victim.pid} for {seconds:.3f} s")
            self._thaws.append(timer)
            self._ledger.freezes += 1

    def _victim(self, role: Role, place: int) -> tuple[Role, Process]:
        """Who is hit: one of the role as soon as there is one, or a worker for a fork server."""
        candidates = (role, Role.WORKER) if role is Role.FORK_SERVER else (role,)
        found: list[tuple[Role, Process]] = []

        def look() -> bool:
            for candidate in candidates:
                processes = of_role(self._instance.pid, candidate)
                found.extend((candidate, process) for process in processes)
                if found:
                    return True
            return False

        wait_until(look, f"a {role} is there")
        return found[place % len(found)]

    def _order(self, order: Order) -> None:
        self._note(f"order {order}")
        self._ledger.orders[order] += 1
        if order is Order.RELOAD:
            self._clerk.reload()
        elif order is Order.UPGRADE:
            self._clerk.upgrade()
        else:
            self._wait_heard()
            self._instance.signal(_SIGNALS[order])

    def _wait_heard(self) -> None:
        """Until the supervisor runs, and has taken all signals to it.

        Two of the same are one for the kernel, as long as the first is not taken; and CONT drops
        TTIN and TTOU that wait for who stands still.
        """

        def look() -> bool:
            status = Path(f"/proc/{self._instance.pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines())
            pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
            masks = [1 << number - 1 for number in _SIGNALS.values()]
            return fields["State"][0] not in "Tt" and not any(pending & mask for mask in masks)

        wait_until(look, "the supervisor has taken all signals")

    def _check(self, workers: int) -> None:
        """Raises AssertionError with all that is wrong."""
        self._note("pause")
        self._thaw()
        self._clerk.finish()
        self._ledger.upgrades = self._clerk.upgrades + self._ledger.orders[Order.USR2]
        status = settle(self._instance, workers, self._chronicle, self._ledger)
        self._load.wait_for_answers(_ANSWERS)
        problems = [
            *self._clerk.problems,
            *findings(self._instance, status, self._chronicle),
            *load_findings(self._load, self._ledger),
        ]
        self._say(self._summary())
        if problems:
            raise AssertionError("\n".join(problems))

    def _compare(self, before: Holdings) -> None:
        """In the shape of the beginning: so many workers, and a fork server."""
        self._clerk.scale(self._workers)
        self._order(Order.RELOAD)
        self._check(self._workers)
        problems: list[str] = []

        def is_same() -> bool:
            problems[:] = Holdings.of(self._instance.pid).compare(before)
            return not problems

        wait_until(is_same, f"{problems}")

    def _thaw(self) -> None:
        for timer in self._thaws:
            timer.join()
        self._thaws.clear()

    def _summary(self) -> str:
        ledger, load = self._ledger, self._load
        victims = Counter(death.role for death in ledger.deaths)
        roles = ", ".join(f"{number} of {role}s" for role, number in sorted(victims.items()))
        seconds = time.monotonic() - self._began
        orders = ", ".join(f"{number} {order}" for order, number in sorted(ledger.orders.items()))
        in_hand = sum(len(death.ports) for death in ledger.deaths)
        return (
            f"{seconds:.0f} s: {len(ledger.deaths)} kills ({roles or 'none'}), "
            f"{ledger.freezes} stops, orders: {orders or 'none'}; {load.answered} answers, "
            f"{len(load.failures)} lost of {in_hand} connections in the hands of the killed"
        )


def _go_on(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    os.close(pidfd)
