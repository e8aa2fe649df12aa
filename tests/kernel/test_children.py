"""What becomes of children, as the supervisor tells it: the test is the supervisor."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sengu.posix.process import Process
from sengu.server.children import Children, Exec
from sengu.server.link import Kin
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.kernel.prompter import Prompter

KEY = "worker/1"
TRUE = Exec(("true",), {}, {})


class Story:
    """A guardian: what it was told, in order. As all do, it answers `ended` with `reap`."""

    def __init__(self, children: Children) -> None:
        self.told: list[str] = []
        self.process: Process
        self._children = children

    def born(self, process: Process) -> None:
        self.told.append("born")
        self.process = process

    def not_born(self, problem: str) -> None:
        self.told.append(f"not born: {problem}")

    def ended(self, how: str) -> None:
        self.told.append(f"ended: {how}")
        self._children.reap(KEY)

    def gone(self) -> None:
        self.told.append("gone")


@pytest.fixture
def prompter() -> Iterator[Prompter]:
    with nothing_left_open(), Prompter() as prompter:
        yield prompter


@pytest.fixture
def children(prompter: Prompter) -> Children:
    return prompter.make_children()


@pytest.fixture
def story(children: Children) -> Story:
    return Story(children)


@pytest.fixture
def child() -> Iterator[Child]:
    """A process that leads a group, and does nothing until it is killed."""
    with sleeper() as child:
        child.wait_to_hear("ready")
        yield child


def sleeper() -> Child:
    def sleep(child: Child) -> None:
        child.tell("ready")
        child.wait_for_go()

    return Child(sleep)


def say_born(prompter: Prompter, child: Child) -> None:
    prompter.say(wire.Spawned(KEY, child.pid), child.pidfd)


def told(prompter: Prompter, story: Story, *what: str) -> None:
    """Wait until the story has come so far."""
    run_until(prompter.loop, lambda: len(story.told) >= len(what))
    assert story.told == list(what)


def killed(child: Child) -> bool:
    assert select.select([child.pidfd], [], [], 20)[0], "it lives"
    ending = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    assert ending is not None
    return ending.si_status == signal.SIGKILL


# --- births ---


def test_the_supervisor_gets_a_document_of_what_is_wanted(
    prompter: Prompter, children: Children, story: Story
) -> None:
    order = Exec(
        ("program", "argument"), {"A": "1"}, {0: 0, 9: 2}, "/", 9, True, True, "/cgroup.procs"
    )
    children.spawn(KEY, order, story)
    message, (document, *sources) = prompter.hear_with(wire.Spawn)
    assert message.key == KEY
    assert [os.path.sameopenfile(*pair) for pair in zip(sources, (0, 2), strict=True)] == [True] * 2
    wanted = wire.Document(
        ("program", "argument"), {"A": "1"}, (0, 9), "/", 9, True, True, "/cgroup.procs"
    )
    assert os.pread(document, 1000, 0) == wire.encode_document(wanted)
    assert story.told == []


def test_the_whole_life_of_a_child_is_told(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.spawn(KEY, TRUE, story)
    prompter.hear(wire.Spawn)
    say_born(prompter, child)
    told(prompter, story, "born")
    assert (story.process.pid, story.process.is_open) == (child.pid, True)
    story.process.signal(signal.SIGKILL)
    assert killed(child)
    prompter.say(wire.Exited(KEY, 3 << 8))
    assert prompter.hear(wire.Reap).key == KEY
    assert story.told == ["born", "ended: exit status 3"]
    assert not story.process.is_open
    prompter.say(wire.Gone(KEY))
    told(prompter, story, "born", "ended: exit status 3", "gone")
    assert prompter.hears_nothing()


def test_one_that_a_fork_server_was_asked_for_is_told_of_likewise(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    assert prompter.hears_nothing()
    say_born(prompter, child)
    told(prompter, story, "born")
    children.end(KEY)


def test_a_process_that_is_refused_is_told_with_its_reason(
    prompter: Prompter, children: Children, story: Story
) -> None:
    children.spawn(KEY, TRUE, story)
    prompter.hear(wire.Spawn)
    prompter.say(wire.Refused(KEY, 11))
    told(
        prompter,
        story,
        "not born: cannot start a process: Resource temporarily unavailable",
    )
    prompter.say(wire.Refused(KEY, 11))  # it is known
    prompter.loop.run_once(prompter.loop.now() + 1)
    assert len(story.told) == 1


def test_what_can_not_be_asked_for_is_not_waited_for(
    prompter: Prompter, children: Children, story: Story
) -> None:
    with pytest.raises(ValueError, match="a NUL"):
        children.spawn(KEY, Exec(("a\0b",), {}, {}), story)
    with pytest.raises(OSError, match="Bad file descriptor"):
        children.spawn(KEY, Exec(("true",), {}, {0: 999_999}), story)
    children.give_up(KEY, "nobody waits")
    assert story.told == []
    assert prompter.hears_nothing()


def test_one_that_is_born_after_it_was_given_up_is_killed(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    children.give_up(KEY, "it took too long")
    children.give_up(KEY, "it took too long")
    assert story.told == ["not born: it took too long"]
    say_born(prompter, child)
    assert prompter.hear(wire.Reap).key == KEY
    assert killed(child)
    assert len(story.told) == 1


def test_one_that_lives_is_not_given_up(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    say_born(prompter, child)
    told(prompter, story, "born")
    children.give_up(KEY, "it took too long")
    assert story.told == ["born"]
    children.end(KEY)


def test_one_that_can_not_be_watched_is_none(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    """There was no descriptor left for its pidfd."""
    children.spawn(KEY, TRUE, story)
    prompter.hear(wire.Spawn)
    prompter.say(wire.Spawned(KEY, child.pid))
    assert prompter.hear(wire.Reap).key == KEY
    assert killed(child)
    assert story.told == ["not born: too many open files to watch it"]


# --- ends ---


def test_who_is_ended_is_killed_and_nobody_is_told(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    say_born(prompter, child)
    told(prompter, story, "born")
    children.end(KEY)
    assert prompter.hear(wire.Reap).key == KEY
    assert killed(child)
    prompter.say(wire.Exited(KEY, 9))  # it had ended before the supervisor heard us
    prompter.say(wire.Gone(KEY))
    assert prompter.hear(wire.Reap).key == KEY
    assert prompter.hears_nothing()
    assert story.told == ["born"]


def test_who_is_ended_before_its_birth_is_killed_then(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    children.end(KEY)
    say_born(prompter, child)
    assert prompter.hear(wire.Reap).key == KEY
    assert killed(child)
    assert story.told == []


def test_who_has_a_key_is_not_gone_when_who_had_it_before_is(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    prompter.say(wire.Gone(KEY))
    say_born(prompter, child)
    told(prompter, story, "born")
    children.end(KEY)


def test_the_whole_group_is_killed_or_signalled(children: Children) -> None:
    def start_another(child: Child) -> None:
        other = os.fork()
        if other == 0:
            signal.pause()
        child.tell(f"other {other}")
        os.waitpid(other, 0)
        child.tell("other ended")
        signal.pause()

    with Child(start_another) as child:
        pidfd = os.pidfd_open(int(child.wait_to_hear("other ")))
        process = Process(child.pid, os.dup(child.pidfd))
        children.signal_group(process, signal.SIGCONT)
        children.kill_group(process)
        for fd in (pidfd, child.pidfd):
            assert select.select([fd], [], [], 20)[0]
        assert killed(child)
        os.close(pidfd)
    process.close()
    children.signal_group(process, signal.SIGTERM)  # nobody is there: no error
    children.kill_group(process)


# --- adoption ---


def kin(child: Child, status: int | None = None, key: str = KEY) -> Kin:
    return Kin(key, child.pid, os.dup(child.pidfd), status)


def test_one_that_was_there_before_us_is_told_of_from_its_birth(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.inherit([kin(child)])
    assert children.names("worker/") == [KEY]
    assert (children.has(KEY), children.has_ended(KEY)) == (True, False)
    children.adopt(KEY, story)
    assert story.told == ["born"]
    assert (children.names("worker/"), children.has(KEY)) == ([], False)
    assert children.keys() == [KEY]
    prompter.say(wire.Exited(KEY, 9))
    told(prompter, story, "born", "ended: signal KILL")
    prompter.say(wire.Gone(KEY))
    told(prompter, story, "born", "ended: signal KILL", "gone")
    assert children.keys() == []


def test_the_end_of_one_that_had_ended_before_us_is_told_later(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.inherit([kin(child, 5 << 8)])
    assert children.has_ended(KEY)
    children.adopt(KEY, story)
    assert story.told == ["born"]
    assert prompter.hear(wire.Reap).key == KEY
    assert story.told == ["born", "ended: exit status 5"]
    prompter.say(wire.Gone(KEY))
    told(prompter, story, "born", "ended: exit status 5", "gone")


def test_one_without_a_pidfd_can_not_be_adopted(children: Children) -> None:
    children.inherit([Kin(KEY, 4_000_001, None, 9)])
    assert not children.has(KEY)
    assert not children.has_ended(KEY)
    assert not children.has("worker/2")


def test_who_is_not_adopted_is_killed_and_those_who_lived_are_told(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    with sleeper() as wanted, sleeper() as ended:
        for other in (wanted, ended):
            other.wait_to_hear("ready")
        children.inherit(
            [
                kin(wanted, key=KEY),
                kin(ended, 9, "worker/2"),
                Kin("worker/3", child.pid, None, None),
            ]
        )
        children.adopt(KEY, story)
        assert children.end_unwanted() == ["worker/3"]
        assert children.end_unwanted() == []
        assert [prompter.hear(wire.Reap).key for _ in range(2)] == ["worker/2", "worker/3"]
        assert killed(child)
        assert killed(ended), "what it has left in its group"
        assert not select.select([wanted.pidfd], [], [], 0)[0]
        children.end(KEY)


# --- without a supervisor ---


def test_who_was_not_born_will_not_be_without_a_supervisor(
    prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    prompter.end()
    told(prompter, story, "not born: no supervisor")
    later, last = Story(children), Story(children)
    children.expect("worker/2", later)
    children.spawn("worker/3", TRUE, last)
    told(prompter, later, "not born: no supervisor")
    told(prompter, last, "not born: no supervisor")


def test_the_end_of_a_child_is_told_without_a_supervisor_too(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.expect(KEY, story)
    say_born(prompter, child)
    prompter.end()
    told(prompter, story, "born")
    run_until(prompter.loop, lambda: prompter.link.is_lost)
    story.process.signal(signal.SIGKILL)
    # Whoever has it now perhaps never reaps; a zombie is not waited for.
    told(prompter, story, "born", "ended: an unknown status: the supervisor is gone", "gone")


def test_who_was_to_be_reaped_is_gone_although_nobody_tells(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.inherit([kin(child, 9)])
    children.adopt(KEY, story)
    prompter.hear(wire.Reap)
    os.killpg(child.pid, signal.SIGKILL)
    assert killed(child)
    prompter.end()
    run_until(prompter.loop, lambda: prompter.link.is_lost)
    told(prompter, story, "born", "ended: signal KILL", "gone")


def test_an_end_that_was_not_told_yet_is_told_once(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    """The supervisor is lost in the same round."""
    os.killpg(child.pid, signal.SIGKILL)
    assert killed(child)
    child.reap()
    prompter.end()
    children.inherit([kin(child, 9)])
    children.adopt(KEY, story)
    told(prompter, story, "born", "ended: signal KILL", "gone")


def test_who_is_ended_without_a_supervisor_is_not_watched_any_more(
    child: Child, prompter: Prompter, children: Children, story: Story
) -> None:
    children.inherit([kin(child)])
    children.adopt(KEY, story)
    prompter.end()
    run_until(prompter.loop, lambda: prompter.link.is_lost)
    number = story.process.pidfd
    children.end(KEY)
    assert killed(child)
    with ExitStack() as stack:
        while (again := os.dup(0)) < number:
            stack.callback(os.close, again)
        stack.callback(os.close, again)
        assert again == number
        read_end, write_end = os.pipe()
        os.dup2(read_end, number)
        prompter.loop.watch(number, select.EPOLLIN, lambda: story.told.append("watched anew"))
        os.write(write_end, b"x")
        told(prompter, story, "born", "watched anew")
        prompter.loop.unwatch(number)
        os.close(read_end)
        os.close(write_end)
