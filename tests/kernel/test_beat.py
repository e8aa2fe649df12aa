"""The beat runs down when the loop does not turn, and only then."""

import os
import select
from collections.abc import Iterator

import pytest

from sengu.server import beat
from sengu.server.beat import Beat
from sengu.wire import supervisor as wire
from tests.kernel.children import nothing_left_open
from tests.kernel.prompter import Prompter


@pytest.fixture
def prompter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prompter]:
    monkeypatch.setattr(beat, "_LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(beat, "_PERIOD_SECONDS", 0.02)
    with nothing_left_open(), Prompter() as prompter:
        yield prompter


def start(prompter: Prompter) -> tuple[Beat, int]:
    """A beat, and what the supervisor watches."""
    found = Beat(prompter.loop, prompter.link)
    found.start()
    message, (fd,) = prompter.hear_with(wire.Hold)
    assert message.name == "beat"
    return found, fd


def test_it_runs_down_when_the_loop_stands_still(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, fd = start(prompter)
    assert select.select([fd], [], [], 20)[0]
    monkeypatch.setattr(beat, "_LIMIT_SECONDS", 60.0)
    prompter.loop.run_once(None)
    assert not select.select([fd], [], [], 0)[0], "it is wound up as soon as the loop turns again"
    found.stop()
    os.close(found._descriptor.fd)


def test_it_does_not_run_down_as_long_as_the_loop_turns(prompter: Prompter) -> None:
    found, fd = start(prompter)
    until = prompter.loop.now() + 1.3
    while (turned_at := prompter.loop.now()) < until:
        prompter.loop.run_once(turned_at + 0.05)
        has_run_down = select.select([fd], [], [], 0)[0] != []
        # On a busy machine it is we who stand still, after the loop has turned.
        assert not has_run_down or prompter.loop.now() - turned_at > 0.9
    found.stop()
    os.close(found._descriptor.fd)


def test_who_stands_still_on_purpose_is_not_watched_and_wakes_up_for_nothing(
    prompter: Prompter,
) -> None:
    found, _ = start(prompter)
    found.stop()
    assert prompter.hear(wire.Drop).name == "beat"
    until = prompter.loop.now() + 0.05
    prompter.loop.run_once(until)
    assert prompter.loop.now() >= until
    found.start()
    assert prompter.hear(wire.Hold).name == "beat"
    found.stop()
    os.close(found._descriptor.fd)
