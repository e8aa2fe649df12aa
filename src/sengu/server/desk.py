"""The signal desk: what each signal to the main pid asks for (docs/signals.md)."""

import signal
from typing import Protocol

from sengu.model import events as ev
from sengu.model.service import SignalProfile
from sengu.planner.reduce import Fact
from sengu.posix.descriptors import has_terminal
from sengu.posix.process import signal_name
from sengu.server.core import Reporter


class LogKeeper(Reporter, Protocol):
    """Who has log files, and is told what happens."""

    def reopen_logs(self) -> None: ...


class SignalDesk:
    """Turns caught signals into facts, by the profile that the user has chosen."""

    def __init__(self, profile: SignalProfile, keeper: LogKeeper) -> None:
        self._profile = profile
        self._keeper = keeper

    def read(self, number: int, *, is_stopping: bool) -> Fact | None:
        """The fact that a signal amounts to; None when it is dealt with, or means nothing."""
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
            case signal.SIGUSR1:
                self._keeper.reopen_logs()
            case signal.SIGUSR2:
                return ev.UpgradeRequested(by)
            case _:  # WINCH from a terminal
                pass
        return None

    def _is_immediate(self, number: int, is_stopping: bool) -> bool:
        if self._profile is SignalProfile.UNICORN:
            return number != signal.SIGQUIT
        return number == signal.SIGQUIT or (number == signal.SIGINT and is_stopping)
