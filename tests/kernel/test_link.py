"""The link to the supervisor, with the test at its other end."""

import os
import resource
import select
import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from sengu.errors import SenguError
from sengu.posix import packets
from sengu.posix.store import Held
from sengu.server.link import Inheritance, Kin, inherit
from sengu.wire import supervisor as wire
from tests.kernel.children import in_child, nothing_left_open, run_until
from tests.kernel.prompter import Prompter

MANY = 2000  # more than a socket takes
_NOBODY = 65534

Said = list[tuple[wire.FromSupervisor, int | None]]


@pytest.fixture
def prompter() -> Iterator[Prompter]:
    with nothing_left_open(), Prompter() as prompter:
        yield prompter


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with nothing_left_open():
        ours, theirs = packets.pair()
        with ours, theirs:
            yield ours, theirs


def listen(prompter: Prompter) -> tuple[Said, list[str]]:
    """What is heard from now on, and how often the loss of the supervisor was told."""
    said: Said = []
    lost: list[str] = []
    prompter.link.listen(
        lambda message, fd: said.append((message, fd)), lambda: lost.append("lost")
    )
    return said, lost


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_what_is_too_much_on_its_way_at_once_is_said_later() -> None:
    """A user's sockets have room for as many descriptors as one of its processes."""

    def body() -> None:
        with Prompter() as prompter:
            listen(prompter)
            if os.geteuid() == 0:  # for root there is always room
                os.setuid(_NOBODY)
            for number in range(20):
                prompter.link.send(wire.Hold(str(number)), (0,))
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (8, limits[1]))
            prompter.link.flush()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            said = [prompter.hear_with(wire.Hold) for _ in range(20)]
            names = [(hold.name, len(fds)) for hold, fds in said]
            assert names == [(str(number), 1) for number in range(20)]

    in_child(body)


# --- what a new server is told ---


def tell(sock: socket.socket, message: wire.FromSupervisor, *fds: int) -> None:
    packets.send(sock, wire.encode_from(message), fds)


def test_all_that_there_is_is_inherited(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    tell(theirs, wire.Hello(wire.VERSION, 77, True))
    tell(theirs, wire.Holding("boot"), 0)
    tell(theirs, wire.Holding("listener/0", "8:15"), 0)
    tell(theirs, wire.Holding("version", "1.2"))
    tell(theirs, wire.Child("worker/1", 101), 0)
    tell(theirs, wire.Child("worker/2", 102, 9), 0)
    tell(theirs, wire.Child("worker/3", 103))
    tell(theirs, wire.Gone("worker/4"))
    tell(theirs, wire.Spawned("worker/5", 105), 0)  # it is in the list, too
    tell(theirs, wire.Signal(15, 77))
    tell(theirs, wire.Begin())
    tell(theirs, wire.Signal(1, 78))
    found = inherit(ours)
    boot, listener = found.held["boot"], found.held["listener/0"]
    first, second, third = found.kin
    assert found == Inheritance(
        77,
        True,
        {"version": "1.2"},
        {"boot": boot, "listener/0": listener},
        found.kin,
        [wire.Signal(15, 77)],
    )
    assert (boot.note, listener.note) == ("", "8:15")
    assert (first.key, first.pid, first.status) == ("worker/1", 101, None)
    assert (second.key, second.pid, second.status) == ("worker/2", 102, 9)
    assert third == Kin("worker/3", 103, None, None)
    assert wire.decode_from(packets.receive(ours)[0]) == wire.Signal(1, 78)
    for fd in (boot.fd, listener.fd, first.pidfd, second.pidfd):
        assert fd is not None
        assert os.path.sameopenfile(fd, 0)
        os.close(fd)


def test_another_version_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    tell(theirs, wire.Hello(99, 77))
    with pytest.raises(SenguError, match="speaks version 99 and this server 1; stop the instance"):
        inherit(ours)


def test_a_supervisor_that_ends_meanwhile_is_told(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    tell(theirs, wire.Hello(wire.VERSION, 77))
    theirs.close()
    with pytest.raises(SenguError, match="the supervisor ended while it started this server"):
        inherit(ours)


def test_what_was_held_is_taken_once() -> None:
    with nothing_left_open():
        held = {
            "notify/1": Held(os.dup(0), "name"),
            "notify/2": Held(os.dup(0)),
            "boot": Held(os.dup(0)),
        }
        with Prompter(held) as prompter:
            link = prompter.link
            assert link.names("notify/") == ["notify/1", "notify/2"]
            assert link.note("notify/1") == "name"
            assert link.take("notify/1") == held["notify/1"]
            assert link.take("notify/1") is None
            assert link.names("notify/") == ["notify/2"]
        for entry in held.values():
            os.close(entry.fd)


# --- what leaves, and when ---


def test_what_is_said_leaves_in_order_with_the_next_round(prompter: Prompter) -> None:
    link = prompter.link
    read_end, write_end = os.pipe()
    link.hold("pipe", read_end, "a note")
    link.drop("other")
    link.send(wire.Reap("worker/1"))
    assert not is_readable(prompter.socket.fileno()), "what it rests on is not on record yet"
    message, (fd,) = prompter.hear_with(wire.Hold)
    assert message == wire.Hold("pipe", "a note")
    assert os.path.sameopenfile(fd, read_end)
    assert prompter.hear(wire.Drop).name == "other"
    assert prompter.hear(wire.Reap).key == "worker/1"
    assert prompter.hears_nothing()
    os.close(read_end)
    os.close(write_end)


def test_who_has_said_something_may_close_what_goes_with_it(prompter: Prompter) -> None:
    read_end, write_end = os.pipe()
    prompter.link.hold("pipe", write_end)
    os.close(write_end)
    _, (fd,) = prompter.hear_with(wire.Hold)
    os.write(fd, b"x")
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)


def test_a_copy_is_closed_when_it_has_left(prompter: Prompter) -> None:
    read_end, write_end = os.pipe()
    prompter.link.hold("pipe", write_end)
    os.close(write_end)
    prompter.link.flush_all()
    assert not is_readable(read_end)
    prompter.socket.close()  # with the only one that is left
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_what_can_not_be_said_leaves_nothing(prompter: Prompter) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        prompter.link.send(wire.Hold("pipe"), (0, 1, 999_999))
    with pytest.raises(ValueError, match="a NUL"):
        prompter.link.hold("a\0b", 0)
    assert prompter.hears_nothing()


def test_orders_that_go_another_way_wait_for_what_was_said_before(prompter: Prompter) -> None:
    link, calls = prompter.link, list[str]()

    def call() -> None:
        assert wire.decode_to(packets.receive(prompter.socket)[0]) == wire.Drop("first")
        with pytest.raises(BlockingIOError):
            packets.receive(prompter.socket)
        calls.append("called")

    link.drop("first")
    link.then(call)
    link.drop("second")
    assert not calls
    assert prompter.hear(wire.Drop).name == "second"
    assert calls == ["called"]


def test_what_is_said_by_who_was_waiting_leaves_too(prompter: Prompter) -> None:
    link = prompter.link
    link.then(lambda: link.drop("first"))
    link.then(lambda: link.then(lambda: link.drop("third")))
    link.drop("second")
    assert [prompter.hear(wire.Drop).name for _ in range(3)] == ["second", "first", "third"]


def test_a_busy_supervisor_hears_all_in_order_when_it_has_time(prompter: Prompter) -> None:
    said, _ = listen(prompter)
    calls: list[str] = []
    for number in range(MANY):
        prompter.link.hold(f"pipe/{number}", 0)
    prompter.link.then(lambda: calls.append("called"))
    for _ in range(10):
        prompter.loop.run_once(prompter.loop.now())
    assert not calls
    prompter.say(wire.Gone("worker/1"))
    run_until(prompter.loop, lambda: said)  # it is heard meanwhile
    for number in range(MANY):
        assert prompter.hear(wire.Hold).name == f"pipe/{number}"
    run_until(prompter.loop, lambda: calls)
    assert prompter.hears_nothing()


def test_a_busy_supervisor_does_not_make_the_loop_spin(prompter: Prompter) -> None:
    listen(prompter)
    for _ in range(MANY):
        prompter.link.drop("nothing")
    prompter.loop.run_once(prompter.loop.now())
    until = prompter.loop.now() + 0.05
    prompter.loop.run_once(until)
    assert prompter.loop.now() >= until, "woken by nothing"


def test_last_words_are_waited_for(prompter: Prompter) -> None:
    for _ in range(MANY):
        prompter.link.drop("nothing")
    prompter.link.send(wire.End(3))
    prompter.socket.setblocking(True)
    heard: list[bytes] = []

    def read() -> None:
        while len(heard) <= MANY:
            heard.append(packets.receive(prompter.socket)[0])

    reader = Thread(target=read)
    reader.start()
    prompter.link.flush_all()
    reader.join(20)
    assert wire.decode_to(heard[-1]) == wire.End(3)


# --- what comes ---


def test_what_the_supervisor_says_is_heard_in_order_with_its_descriptors(
    prompter: Prompter,
) -> None:
    said, _ = listen(prompter)
    prompter.say(wire.Spawned("worker/1", 101), 0)
    prompter.say(wire.Exited("worker/1", 9))
    run_until(prompter.loop, lambda: len(said) == 2)
    (first, pidfd), second = said
    assert first == wire.Spawned("worker/1", 101)
    assert pidfd is not None
    assert os.path.sameopenfile(pidfd, 0)
    assert second == (wire.Exited("worker/1", 9), None)
    os.close(pidfd)


def test_more_descriptors_than_one_are_closed(prompter: Prompter) -> None:
    said, _ = listen(prompter)
    prompter.say(wire.Spawned("worker/1", 101), 0, 1, 2)
    run_until(prompter.loop, lambda: said)
    ((_, pidfd),) = said
    assert pidfd is not None
    os.close(pidfd)


def test_while_it_stands_still_a_server_hears_only_that_it_is_to_go_on(
    prompter: Prompter,
) -> None:
    said, _ = listen(prompter)
    prompter.say(wire.Exited("worker/1", 9))
    prompter.say(wire.Spawned("worker/2", 102), 0)
    prompter.say(wire.Resume("it was not good"))
    prompter.say(wire.Exited("worker/2", 9))
    assert prompter.link.await_resume() == wire.Resume("it was not good")
    assert not said
    run_until(prompter.loop, lambda: len(said) == 3)
    assert [message for message, _ in said] == [
        wire.Exited("worker/1", 9),
        wire.Spawned("worker/2", 102),
        wire.Exited("worker/2", 9),
    ]
    _, (_, pidfd), _ = said
    assert pidfd is not None
    os.close(pidfd)
    prompter.link.drop("it speaks, too")
    prompter.hear(wire.Drop)
    prompter.loop.run_once(prompter.loop.now())  # nothing that waits for more


def test_what_was_said_while_a_server_stood_still_is_heard_before_what_comes_after(
    prompter: Prompter,
) -> None:
    link, said = prompter.link, list[str]()

    def hear(message: wire.FromSupervisor, _fd: int | None) -> None:
        if isinstance(message, wire.Pause):
            assert link.await_resume() is not None
        elif isinstance(message, wire.Gone):
            said.append(message.key)

    link.listen(hear, lambda: None)
    prompter.socket.setblocking(True)
    expected = []
    for number in range(3):
        prompter.say(wire.Pause())
        expected += [f"during/{number}", f"after/{number}"]
        prompter.say(wire.Gone(f"during/{number}"))
        prompter.say(wire.Resume("it was not good"))
        prompter.say(wire.Gone(f"after/{number}"))
    run_until(prompter.loop, lambda: len(said) == len(expected))
    assert said == expected


def test_a_server_that_stands_still_when_the_supervisor_ends_goes_on_alone(
    prompter: Prompter,
) -> None:
    said, lost = listen(prompter)
    prompter.say(wire.Exited("worker/1", 9))
    prompter.end()
    assert prompter.link.await_resume() is None
    run_until(prompter.loop, lambda: lost)
    assert said == [(wire.Exited("worker/1", 9), None)]
    assert lost == ["lost"]


# --- loss ---


@pytest.mark.parametrize("has_read", [True, False])
def test_the_end_of_the_supervisor_is_told_once_after_all_it_has_said(
    prompter: Prompter, has_read: bool
) -> None:
    said, lost = listen(prompter)
    prompter.link.drop("unread")
    if has_read:
        prompter.hear(wire.Drop)
    else:
        prompter.link.flush_all()
    prompter.say(wire.Exited("worker/1", 9))
    prompter.say(wire.Exited("worker/2", 9))
    prompter.end()
    run_until(prompter.loop, lambda: lost)
    assert [message for message, _ in said] == [
        wire.Exited("worker/1", 9),
        wire.Exited("worker/2", 9),
    ]
    prompter.loop.run_once(prompter.loop.now())
    assert lost == ["lost"]
    assert prompter.link.is_lost


def test_nobody_waits_in_vain_for_what_a_lost_supervisor_does_not_hear(prompter: Prompter) -> None:
    _, lost = listen(prompter)
    calls: list[str] = []
    for _ in range(MANY):
        prompter.link.hold("pipe", 0)
    prompter.link.then(lambda: calls.append("before"))
    prompter.loop.run_once(prompter.loop.now())
    assert not calls
    prompter.end()
    run_until(prompter.loop, lambda: lost)
    assert calls == ["before"]
    prompter.link.hold("pipe", 0)
    prompter.link.then(lambda: calls.append("after"))
    prompter.link.flush_all()
    run_until(prompter.loop, lambda: len(calls) == 2)
    assert calls == ["before", "after"]


def test_last_words_to_a_supervisor_that_is_gone_are_not_waited_for(prompter: Prompter) -> None:
    for _ in range(MANY):
        prompter.link.drop("nothing")
    prompter.loop.run_once(prompter.loop.now())
    prompter.end()
    prompter.link.flush_all()
