"""What an outbox asks of its channel, and when it asks nothing more."""

from collections.abc import Callable
from typing import Any

import pytest

from sengu.consumers.model.topology import topology
from sengu.consumers.worker.outbox import Needs, Outbox
from sengu.posix.loop import Loop
from tests.unit.support_consumers import spec_of


class Channel:
    """As pika's, with a broker that answers when it is told to. One that closes takes nothing."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[Any] = []
        self.answers: list[Callable[..., None]] = []

    def add_on_close_callback(self, _callback: object) -> None: ...
    def add_on_return_callback(self, _callback: object) -> None: ...

    def _ask(self, what: Any, callback: Callable[..., None]) -> None:
        assert self.is_open, f"{what} is asked of a channel that closes"
        self.asked.append(what)
        self.answers.append(callback)

    def exchange_declare(self, name: str, *_: object, callback: Any, **_options: object) -> None:
        self._ask(name, callback)

    def queue_declare(self, name: str, callback: Any, **_options: object) -> None:
        self._ask(name, callback)

    def queue_bind(self, queue: str, *_: object, callback: Any, **_options: object) -> None:
        self._ask(queue, callback)

    def confirm_delivery(self, _on_confirm: object, callback: Any) -> None:
        self._ask("confirms", callback)


class Household:
    """The connection of an outbox, and who owns it."""

    def __init__(self) -> None:
        self.begin: Callable[[Channel], None] = lambda _channel: None
        self.is_opened = False

    def channel(self, on_open_callback: Callable[[Channel], None]) -> Channel:
        self.begin = on_open_callback
        return Channel()

    def opened(self) -> None:
        self.is_opened = True

    def lost(self, _outbox: object, error: BaseException) -> None:
        raise error

    def refused(self, queue: str) -> None:
        raise AssertionError(queue)


@pytest.fixture
def household() -> Household:
    return Household()


@pytest.fixture
def channel(household: Household) -> Channel:
    needs = Needs((topology(spec_of()),), declares=True)
    outbox = Outbox(household, Loop(), needs, household)
    opened: Channel = outbox._channel
    household.begin(opened)
    return opened


def test_each_thing_is_asked_when_the_one_before_it_is_answered(
    household: Household, channel: Channel
) -> None:
    while not household.is_opened:
        assert len(channel.answers) == 1
        channel.answers.pop()(None)
    assert channel.asked[-1] == "confirms"
    assert len(channel.asked) > 3


def test_an_answer_that_comes_after_the_good_bye_asks_for_nothing_more(
    household: Household, channel: Channel
) -> None:
    channel.is_open = False  # the worker is asked to stop while it declares
    channel.answers.pop()(None)
    assert len(channel.asked) == 1
    assert not household.is_opened
