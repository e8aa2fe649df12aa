"""The log command: started, adopted, started again, and nothing of what was written is lost."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sengu.server import log_command
from sengu.server.children import Children
from sengu.server.link import Kin
from sengu.server.log_command import LogCommand
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.kernel.prompter import Prompter
from tests.kernel.shelf import Shelf

ARGV = ("rotate", "/var/log/web")


@pytest.fixture
def child() -> Iterator[Child]:
    """A process that takes the command's place."""
    with Child(lambda child: child.wait_for_go()) as child:
        yield child


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


@pytest.fixture
def prompter() -> Iterator[Prompter]:
    with Prompter() as prompter:
        yield prompter


@pytest.fixture
def children(prompter: Prompter) -> Children:
    return prompter.make_children()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def make(
    shelf: Shelf,
    prompter: Prompter,
    children: Children,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Makes log commands, whose descriptors are closed in the end."""
    monkeypatch.setattr(log_command, "_RESTART_SECONDS", 0.01)
    made: list[LogCommand] = []

    def make_one() -> LogCommand:
        made.append(LogCommand(prompter.loop, children, shelf, ARGV, warnings.append))
        return made[-1]

    yield make_one
    for one in made:
        for fd in (one._read_end, one.fd, one._stdout, one._stderr):
            os.close(fd)


def hear_start(prompter: Prompter) -> list[int]:
    """The command is to be started; what it is to have as 0, 1 and 2."""
    message, (_document, *standard) = prompter.hear_with(wire.Spawn)
    assert message.key == "log"
    return standard


def test_our_output_is_its_input_and_its_own_goes_where_ours_went(
    make: Any, prompter: Prompter, shelf: Shelf
) -> None:
    log = make()
    assert log.is_new
    stdin, stdout, stderr = hear_start(prompter)
    os.write(log.fd, b"a line")
    assert os.read(stdin, 100) == b"a line"
    assert os.path.sameopenfile(stdout, 1)
    assert os.path.sameopenfile(stderr, 2)
    assert list(shelf.held) == ["log/read", "log/write", "log/stdout", "log/stderr"]


def test_one_that_has_ended_is_started_again_when_all_of_it_is_gone(
    make: Any, prompter: Prompter, warnings: list[str], child: Child
) -> None:
    log = make()
    hear_start(prompter)
    prompter.say(wire.Spawned("log", child.pid), child.pidfd)
    os.write(log.fd, b"nobody reads this")
    prompter.say(wire.Exited("log", 3 << 8))
    assert prompter.hear(wire.Reap).key == "log"
    assert warnings == ["the log command exited with exit status 3; it is started again"]
    ending = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    assert ending is not None
    assert ending.si_status == signal.SIGKILL, "what is left of it reads beside the next"
    assert prompter.hears_nothing()
    prompter.say(wire.Gone("log"))
    stdin, *_ = hear_start(prompter)
    assert os.read(stdin, 100) == b"nobody reads this"


def test_one_that_can_not_be_started_is_tried_again(
    make: Any, prompter: Prompter, warnings: list[str]
) -> None:
    make()
    hear_start(prompter)
    prompter.say(wire.Refused("log", 11))
    hear_start(prompter)
    assert warnings == [
        "cannot start the log command: cannot start a process: Resource temporarily unavailable"
    ]


def test_the_next_server_writes_to_the_same_command(
    make: Any, prompter: Prompter, shelf: Shelf, children: Children, child: Child
) -> None:
    stdin, *_ = [make(), hear_start(prompter)][1]
    shelf.pass_on()
    children.inherit([Kin("log", child.pid, os.dup(child.pidfd), None)])
    second = make()
    assert not second.is_new
    assert prompter.hears_nothing(), "it runs"
    os.write(second.fd, b"a line")
    assert os.read(stdin, 100) == b"a line"
    children.end("log")


def test_one_that_has_ended_between_two_servers_is_started_again(
    make: Any,
    prompter: Prompter,
    shelf: Shelf,
    children: Children,
    warnings: list[str],
    child: Child,
) -> None:
    first = make()
    hear_start(prompter)
    os.write(first.fd, b"nobody reads this")
    shelf.pass_on()
    children.inherit([Kin("log", child.pid, os.dup(child.pidfd), 9)])
    make()
    assert prompter.hear(wire.Reap).key == "log"
    assert len(warnings) == 1
    prompter.say(wire.Gone("log"))
    stdin, *_ = hear_start(prompter)
    assert os.read(stdin, 100) == b"nobody reads this"


def test_one_that_was_never_started_is_started_by_the_next_server(
    make: Any, prompter: Prompter, shelf: Shelf
) -> None:
    make()
    hear_start(prompter)
    shelf.pass_on()
    make()
    assert len(hear_start(prompter)) == 3
    run_until(prompter.loop, prompter.hears_nothing)
