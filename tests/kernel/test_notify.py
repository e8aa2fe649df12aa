"""NOTIFY_SOCKET: what counts, from whom, and what is dropped (sd_notify(3))."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from sengu.posix.loop import Loop
from sengu.server.notify import Manager, NotifySocket, parse
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.kernel.prompter import Prompter
from tests.kernel.shelf import Shelf
from tests.support import needs_root

STRANGER = 65534

Heard = list[dict[str, str]]


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop


def listen(loop: Loop, shelf: Shelf, session: int = 0) -> tuple[NotifySocket, Heard]:
    heard: Heard = []
    notify = NotifySocket(loop, shelf, "7", "by hand")
    notify.start(session, lambda message: heard.append(dict(message)))
    return notify, heard


def sender_to(name: str) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect("\0" + name.removeprefix("@"))
    return sender


def test_messages_of_our_own_user_are_heard_in_order(shelf: Shelf, loop: Loop) -> None:
    notify, heard = listen(loop, shelf)
    with sender_to(notify.name) as sender:
        sender.send(b"READY=1\nSTATUS=up = well")
        sender.send(b"WATCHDOG=1")
    run_until(loop, lambda: len(heard) == 2)
    assert heard == [{"READY": "1", "STATUS": "up = well"}, {"WATCHDOG": "1"}]
    notify.close()


def test_who_speaks_without_end_does_not_hold_up_the_rest(shelf: Shelf, loop: Loop) -> None:
    notify = NotifySocket(loop, shelf, "1", "by hand")
    heard: list[object] = []
    with sender_to(notify.name) as sender:

        def hear(message: object) -> None:
            heard.append(message)
            if len(heard) < 100_000:
                sender.send(b"STATUS=and so on")

        notify.start(os.getsid(0), hear)
        sender.send(b"STATUS=I begin")
        loop.run_once(None)
        assert 1 < len(heard) < 100_000
    notify.close()


def test_names_are_abstract_and_never_the_same(shelf: Shelf, loop: Loop) -> None:
    first, second = (
        NotifySocket(loop, shelf, "7", "by hand"),
        NotifySocket(loop, shelf, "7", "by hand"),
    )
    assert first.name.startswith(f"@sengu/{os.getpid()}/7/")
    assert first.name != second.name
    first.close()
    second.close()


def test_garbage_is_passed_over(shelf: Shelf, loop: Loop) -> None:
    notify, heard = listen(loop, shelf)
    with sender_to(notify.name) as sender:
        for garbage in (b"", b"\0", b"\xff\xfe", b"no pair", b"=", b"x" * 65_000):
            sender.send(garbage)
        sender.send(b"READY=1")
    run_until(loop, lambda: {"READY": "1"} in heard)
    assert all(set(message) <= {"READY", ""} for message in heard)
    notify.close()


def test_descriptors_that_come_along_are_closed(shelf: Shelf, loop: Loop) -> None:
    notify, heard = listen(loop, shelf)
    read_end, write_end = os.pipe()
    with sender_to(notify.name) as sender:
        socket.send_fds(sender, [b"BARRIER=1"], [write_end])
        socket.send_fds(sender, [b"FDSTORE=1"], [write_end] * 50)  # more than we make room for
    os.close(write_end)
    run_until(loop, lambda: len(heard) == 2)
    assert os.read(read_end, 1) == b"", "the barrier is open: nobody has the other end"
    os.close(read_end)
    notify.close()


def test_a_socket_that_lingers_does_not_hold_up_who_closes_it(shelf: Shelf, loop: Loop) -> None:
    """Its sender has closed it already: ours is the last close, and would wait ten minutes."""
    notify, heard = listen(loop, shelf)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lingering = socket.create_connection(listener.getsockname())
        lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        lingering.setblocking(False)
        while select.select([], [lingering], [], 0)[1]:
            lingering.send(bytes(65536))
        with sender_to(notify.name) as sender:
            socket.send_fds(sender, [b"FDSTORE=1"], [lingering.fileno()])
        lingering.close()
        run_until(loop, lambda: bool(heard))
    notify.close()


def say_as_a_stranger(name: str) -> Child:
    def say(child: Child) -> None:
        sender = sender_to(name)
        os.setresuid(STRANGER, STRANGER, STRANGER)
        child.tell("ready")
        child.wait_for_go()
        sender.send(b"READY=1")
        child.tell("said")

    return Child(say)


def test_another_user_counts_only_in_the_workers_session(shelf: Shelf, loop: Loop) -> None:
    needs_root()
    stranger_socket, stranger_heard = listen(loop, shelf)
    with say_as_a_stranger(stranger_socket.name) as child:
        child.wait_to_hear("ready")
        child.go()
        child.wait_to_hear("said")
        with sender_to(stranger_socket.name) as sender:
            sender.send(b"STATUS=after")
        run_until(loop, lambda: stranger_heard)
        assert stranger_heard == [{"STATUS": "after"}]
    stranger_socket.close()

    worker_socket = NotifySocket(loop, shelf, "7", "by hand")
    heard: Heard = []
    with say_as_a_stranger(worker_socket.name) as child:  # which has become that user since
        child.wait_to_hear("ready")
        worker_socket.start(child.pid, lambda message: heard.append(dict(message)))
        child.go()
        run_until(loop, lambda: heard)
        assert heard == [{"READY": "1"}]
    worker_socket.close()


def test_lines_of_another_form_are_left_out() -> None:
    assert parse(b"A=1\nB\n=2\nC==\nA=3") == {"A": "3", "": "2", "C": "="}
    assert parse(b"STATUS=\xff") == {"STATUS": "\ufffd"}


# --- from one server to the next ---


def test_the_next_server_hears_on_the_same_socket(shelf: Shelf, loop: Loop) -> None:
    notify, heard = listen(loop, shelf)
    kill(loop, notify)
    with sender_to(notify.name) as sender:
        sender.send(b"READY=1")  # nobody is there
    shelf.pass_on()
    follower, heard = listen(loop, shelf)
    assert (follower.name, follower.remark) == (notify.name, "by hand")
    run_until(loop, lambda: heard)
    assert heard == [{"READY": "1"}]
    follower.close()
    assert shelf.held == {}


def test_a_message_is_in_the_socket_until_it_has_been_heard(shelf: Shelf, loop: Loop) -> None:
    """Who is killed while it hears a message leaves it to the next."""
    notify = NotifySocket(loop, shelf, "7", "")

    def die(_message: object) -> None:
        raise KeyboardInterrupt

    notify.start(0, die)
    read_end, write_end = os.pipe()
    with sender_to(notify.name) as sender:
        socket.send_fds(sender, [b"BARRIER=1"], [write_end])
        sender.send(b"READY=1")
    os.close(write_end)
    with pytest.raises(KeyboardInterrupt):
        notify.drain()
    kill(loop, notify)
    assert not select.select([read_end], [], [], 0)[0], "the barrier was not passed"
    shelf.pass_on()
    follower, heard = listen(loop, shelf)
    follower.drain()
    assert heard == [{"BARRIER": "1"}, {"READY": "1"}]
    assert os.read(read_end, 1) == b""
    follower.drain()
    assert len(heard) == 2, "each is heard once"
    os.close(read_end)
    follower.close()


def test_who_hears_may_close_the_socket(shelf: Shelf, loop: Loop) -> None:
    notify = NotifySocket(loop, shelf, "7", "")
    heard: list[object] = []

    def hear(message: object) -> None:
        heard.append(message)
        notify.close()

    notify.start(0, hear)
    with sender_to(notify.name) as sender:
        sender.send(b"READY=1")
        sender.send(b"READY=1")
    run_until(loop, lambda: heard)
    assert len(heard) == 1


def kill(loop: Loop, notify: NotifySocket) -> None:
    """What a server that is killed does to its own."""
    loop.unwatch(notify._socket.fileno())
    notify._socket.close()


# --- our own manager ---


def manager_with(prompter: Prompter, **variables: str) -> Manager:
    return Manager(prompter.loop, prompter.link, {"NOTIFY_SOCKET": "/somewhere", **variables})


def test_our_own_manager_is_told_by_the_supervisor_and_its_variables_are_not_passed_on() -> None:
    environment = {
        "NOTIFY_SOCKET": "/somewhere",
        "WATCHDOG_USEC": "20000",
        "WATCHDOG_PID": "77",
        "OTHER": "stays",
    }
    with nothing_left_open(), Prompter() as prompter:
        manager = Manager(prompter.loop, prompter.link, environment)
        assert environment == {"OTHER": "stays"}
        manager.say("READY=1", "STATUS=fine")
        assert prompter.hear(wire.Notify).text == "READY=1\nSTATUS=fine"
        manager.say_reloading()
        reloading, moment = prompter.hear(wire.Notify).text.split("\n")
        assert reloading == "RELOADING=1"
        assert moment.startswith("MONOTONIC_USEC=")
        assert prompter.hears_nothing(), "it beats when it is told which process is watched"
        began = prompter.loop.now()
        manager.start(77)
        for _ in range(4):
            assert prompter.hear(wire.Notify).text == "WATCHDOG=1"
        assert prompter.loop.now() - began >= 0.03


@pytest.mark.parametrize(
    "variables",
    [
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "NOTIFY_SOCKET": ""},
        {},
    ],
)
def test_a_watchdog_that_is_not_for_us_gets_no_beats(variables: dict[str, str]) -> None:
    with nothing_left_open(), Prompter() as prompter:
        manager_with(prompter, **variables).start(77)
        assert prompter.hears_nothing()


def test_without_a_manager_nothing_is_said() -> None:
    with nothing_left_open(), Prompter() as prompter:
        Manager(prompter.loop, prompter.link, {}).say("STATUS=nobody")
        assert prompter.hears_nothing()
