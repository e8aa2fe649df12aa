"""What signals to the main pid mean, in each profile."""

import signal

import pytest

from sengu.model import events as ev
from sengu.model.service import SignalProfile
from sengu.planner.reduce import Fact
from sengu.server.desk import SignalDesk


class FakeKeeper:
    """A `LogKeeper` that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def post(self, fact: Fact) -> None:
        self.asked.append(f"post {fact}")

    def warn(self, text: str) -> None:
        self.asked.append(text)

    def reopen_logs(self) -> None:
        self.asked.append("reopen")

    def dump(self) -> None:
        self.asked.append("dump")


def read(profile: SignalProfile, number: int, *, is_stopping: bool = False) -> Fact | list[str]:
    """The fact that it is, or else what was asked for."""
    keeper = FakeKeeper()
    fact = SignalDesk(profile, keeper).read(number, is_stopping=is_stopping)
    return keeper.asked if fact is None else fact


def test_usr2_of_serverengine_reads_the_configuration_and_reopens_the_logs() -> None:
    keeper = FakeKeeper()
    desk = SignalDesk(SignalProfile.SERVERENGINE, keeper)
    fact = desk.read(signal.SIGUSR2, is_stopping=False)
    assert fact == ev.ConfigureRequested("USR2")
    assert keeper.asked == ["reopen"]


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (signal.SIGTERM, ev.StopRequested("TERM")),
        (signal.SIGQUIT, ev.StopRequested("QUIT", immediate=True)),
        (signal.SIGUSR1, ev.DeployRequested("USR1")),
        (signal.SIGHUP, ev.DeployRequested("HUP", immediate=True)),
        (signal.SIGINT, ev.DeployRequested("INT")),
        (signal.SIGCONT, ["dump"]),
        (signal.SIGTTIN, []),
        (signal.SIGTTOU, []),
        (signal.SIGWINCH, []),
    ],
)
def test_signals_mean_what_users_of_serverengine_expect(
    number: signal.Signals, meaning: Fact | list[str]
) -> None:
    assert read(SignalProfile.SERVERENGINE, number) == meaning


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (signal.SIGTERM, ev.StopRequested("TERM")),
        (signal.SIGINT, ev.StopRequested("INT")),
        (signal.SIGQUIT, ev.StopRequested("QUIT", immediate=True)),
        (signal.SIGHUP, ev.DeployRequested("HUP")),
        (signal.SIGUSR1, ["reopen"]),
        (signal.SIGUSR2, ev.UpgradeRequested("USR2")),
        (signal.SIGTTIN, ev.ScaleAdjusted(+1, "TTIN")),
        (signal.SIGTTOU, ev.ScaleAdjusted(-1, "TTOU")),
        (signal.SIGCONT, ["dump"]),
    ],
)
def test_signals_mean_by_default(number: signal.Signals, meaning: Fact | list[str]) -> None:
    assert read(SignalProfile.DEFAULT, number) == meaning


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (signal.SIGTERM, ev.StopRequested("TERM", immediate=True)),
        (signal.SIGINT, ev.StopRequested("INT", immediate=True)),
        (signal.SIGQUIT, ev.StopRequested("QUIT")),
        (signal.SIGHUP, ev.DeployRequested("HUP")),
        (signal.SIGCONT, []),
    ],
)
def test_signals_mean_what_users_of_unicorn_expect(
    number: signal.Signals, meaning: Fact | list[str]
) -> None:
    assert read(SignalProfile.UNICORN, number) == meaning


def test_a_second_int_does_not_wait_for_workers() -> None:
    again = read(SignalProfile.DEFAULT, signal.SIGINT, is_stopping=True)
    assert again == ev.StopRequested("INT", immediate=True)
