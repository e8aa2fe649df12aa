"""The signal desk: what each signal to the main pid asks for (docs/signals.md)."""

import signal
from typing import Protocol

from sengu.model import events as ev
from sengu.model.service import SignalProfile
from sengu.planner.reduce import Fact
from sengu.posix.descriptors import has_terminal
from sengu.posix.process import Children, signal_name
from sengu.posix.signals import SignalPipe
from sengu.server.core import Reporter

CAUGHT = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


class LogKeeper(Reporter, Protocol):
    """Who has log files, and is told what happens."""

    def reopen_logs(self) -> None: ...


class SignalDesk:
    """Turns caught signals into facts, by the profile that the user has chosen."""

    def __init__(
        self, pipe: SignalPipe, children: Children, profile: SignalProfile, keeper: LogKeeper
    ) -> None:
        self._pipe = pipe
        self._children = children
        self._profile = profile
        self._keeper = keeper

    def read(self, *, is_stopping: bool) -> list[Fact]:
        """The facts that the signals since the last call amount to.

        Of a storm of equal signals one is heard: between two looks they ask for the same.
        """
        facts: list[Fact] = []
        for number in self._pipe.read():
            fact = self._fact(number, is_stopping)
            if fact is not None:
                facts.append(fact)
        return facts

    def _fact(self, number: int, is_stopping: bool) -> Fact | None:
        by = signal_name(number)
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                return ev.StopRequested(by, self._is_immediate(number, is_stopping))
            case signal.SIGHUP:
                return ev.DeployRequested(by)
            case signal.SIGTTIN:
                return ev.ScaleAdjusted(+1, by)
            case signal.SIGTTOU:
                return ev.ScaleAdjusted(-1, by)
            case signal.SIGWINCH if not has_terminal():  # a terminal sends it when it is resized
                return ev.RestRequested(by)
            case signal.SIGCHLD:
                self._children.reap()  # ours are told by their pidfds; this is for orphans
            case signal.SIGUSR1:
                self._keeper.reopen_logs()
            case signal.SIGUSR2:
                self._keeper.warn(
                    "USR2 is ignored: this version can not upgrade itself in place yet"
                )
            case _:  # WINCH from a terminal
                pass
        return None

    def _is_immediate(self, number: int, is_stopping: bool) -> bool:
        if self._profile is SignalProfile.UNICORN:
            return number != signal.SIGQUIT
        return number == signal.SIGQUIT or (number == signal.SIGINT and is_stopping)
