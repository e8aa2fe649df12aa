"""The signal desk: what each signal to the main pid asks for (docs/signals.md)."""

import enum
import signal
from collections.abc import Mapping
from typing import Protocol, assert_never

from sengu.model import events as ev
from sengu.model.service import SignalProfile
from sengu.planner.reduce import Fact
from sengu.posix.descriptors import has_terminal
from sengu.posix.process import signal_name
from sengu.server.core import Reporter


class LogKeeper(Reporter, Protocol):
    """Who has log files, and is told what happens."""

    def reopen_logs(self) -> None: ...
    def dump(self) -> None: ...


class Wish(enum.Enum):
    """What somebody may want who sends a signal."""

    STOP = enum.auto()
    STOP_AT_ONCE = enum.auto()
    STOP_OR_AT_ONCE = enum.auto()  # the second time
    DEPLOY = enum.auto()
    DEPLOY_AT_ONCE = enum.auto()
    UPGRADE = enum.auto()
    REOPEN_LOGS = enum.auto()
    CONFIGURE = enum.auto()
    ONE_MORE = enum.auto()
    ONE_LESS = enum.auto()
    REST = enum.auto()
    DUMP = enum.auto()


_DEFAULT = {
    signal.SIGTERM: Wish.STOP,
    signal.SIGINT: Wish.STOP_OR_AT_ONCE,
    signal.SIGQUIT: Wish.STOP_AT_ONCE,
    signal.SIGHUP: Wish.DEPLOY,
    signal.SIGUSR1: Wish.REOPEN_LOGS,
    signal.SIGUSR2: Wish.UPGRADE,
    signal.SIGTTIN: Wish.ONE_MORE,
    signal.SIGTTOU: Wish.ONE_LESS,
    signal.SIGWINCH: Wish.REST,
    signal.SIGCONT: Wish.DUMP,
}
_PROFILES: Mapping[SignalProfile, Mapping[signal.Signals, Wish]] = {
    SignalProfile.DEFAULT: _DEFAULT,
    SignalProfile.UNICORN: {
        **{number: wish for number, wish in _DEFAULT.items() if wish is not Wish.DUMP},
        signal.SIGTERM: Wish.STOP_AT_ONCE,
        signal.SIGINT: Wish.STOP_AT_ONCE,
        signal.SIGQUIT: Wish.STOP,
    },
    SignalProfile.SERVERENGINE: {
        signal.SIGTERM: Wish.STOP,
        signal.SIGQUIT: Wish.STOP_AT_ONCE,
        signal.SIGUSR1: Wish.DEPLOY,
        signal.SIGHUP: Wish.DEPLOY_AT_ONCE,
        signal.SIGUSR2: Wish.CONFIGURE,
        signal.SIGINT: Wish.DEPLOY,
        signal.SIGCONT: Wish.DUMP,
    },
}


class SignalDesk:
    """Turns caught signals into facts, by the profile that the user has chosen."""

    def __init__(self, profile: SignalProfile, keeper: LogKeeper) -> None:
        self._wishes = _PROFILES[profile]
        self._keeper = keeper

    def read(self, number: int, *, is_stopping: bool) -> Fact | None:
        """The fact that a signal amounts to; None when it is dealt with, or means nothing."""
        wish = self._wishes.get(signal.Signals(number))
        return None if wish is None else self._grant(wish, signal_name(number), is_stopping)

    def _grant(self, wish: Wish, by: str, is_stopping: bool) -> Fact | None:
        match wish:
            case Wish.STOP | Wish.STOP_AT_ONCE:
                return ev.StopRequested(by, immediate=wish is Wish.STOP_AT_ONCE)
            case Wish.STOP_OR_AT_ONCE:
                return ev.StopRequested(by, immediate=is_stopping)
            case Wish.DEPLOY | Wish.DEPLOY_AT_ONCE:
                return ev.DeployRequested(by, immediate=wish is Wish.DEPLOY_AT_ONCE)
            case Wish.UPGRADE:
                return ev.UpgradeRequested(by)
            case Wish.ONE_MORE:
                return ev.ScaleAdjusted(+1, by)
            case Wish.ONE_LESS:
                return ev.ScaleAdjusted(-1, by)
            case Wish.REST:  # a terminal sends it when it is resized
                return None if has_terminal() else ev.RestRequested(by)
            case Wish.REOPEN_LOGS:
                self._keeper.reopen_logs()
            case Wish.CONFIGURE:
                self._keeper.reopen_logs()
                return ev.ConfigureRequested(by)
            case Wish.DUMP:
                self._keeper.dump()
            case _:
                assert_never(wish)
        return None
