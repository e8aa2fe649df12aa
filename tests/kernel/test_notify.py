"""NOTIFY_SOCKET: what counts, from whom, and what is dropped (sd_notify(3))."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.posix.loop import Loop
from sengu.server.notify import Manager, NotifySocket, parse
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.support import needs_root

STRANGER = 65534

Heard = list[dict[str, str]]


@pytest.fixture
def loop() -> Iterator[Loop]:
    with nothing_left_open(), closing(Loop()) as loop:
        yield loop


def listen(loop: Loop, session: int = 0) -> tuple[NotifySocket, Heard]:
    heard: Heard = []
    notify = NotifySocket(loop, "7")
    notify.start(session, lambda message: heard.append(dict(message)))
    return notify, heard


def sender_to(name: str) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect("\0" + name.removeprefix("@"))
    return sender


def test_messages_of_our_own_user_are_heard_in_order(loop: Loop) -> None:
    notify, heard = listen(loop)
    with sender_to(notify.name) as sender:
        sender.send(b"READY=1\nSTATUS=up = well")
        sender.send(b"WATCHDOG=1")
    run_until(loop, lambda: len(heard) == 2)
    assert heard == [{"READY": "1", "STATUS": "up = well"}, {"WATCHDOG": "1"}]
    notify.close()


def test_who_speaks_without_end_does_not_hold_up_the_rest(loop: Loop) -> None:
    notify = NotifySocket(loop, "1")
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


def test_names_are_abstract_and_never_the_same(loop: Loop) -> None:
    first, second = NotifySocket(loop, "7"), NotifySocket(loop, "7")
    assert first.name.startswith(f"@sengu/{os.getpid()}/7/")
    assert first.name != second.name
    first.close()
    second.close()


def test_garbage_is_passed_over(loop: Loop) -> None:
    notify, heard = listen(loop)
    with sender_to(notify.name) as sender:
        for garbage in (b"", b"\0", b"\xff\xfe", b"no pair", b"=", b"x" * 65_000):
            sender.send(garbage)
        sender.send(b"READY=1")
    run_until(loop, lambda: {"READY": "1"} in heard)
    assert all(set(message) <= {"READY", ""} for message in heard)
    notify.close()


def test_descriptors_that_come_along_are_closed(loop: Loop) -> None:
    notify, heard = listen(loop)
    read_end, write_end = os.pipe()
    with sender_to(notify.name) as sender:
        socket.send_fds(sender, [b"BARRIER=1"], [write_end])
        socket.send_fds(sender, [b"FDSTORE=1"], [write_end] * 50)  # more than we make room for
    os.close(write_end)
    run_until(loop, lambda: len(heard) == 2)
    assert os.read(read_end, 1) == b"", "the barrier is open: nobody has the other end"
    os.close(read_end)
    notify.close()


def test_a_socket_that_lingers_does_not_hold_up_who_closes_it(loop: Loop) -> None:
    """Its sender has closed it already: ours is the last close, and would wait ten minutes."""
    notify, heard = listen(loop)
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


def test_another_user_counts_only_in_the_workers_session(loop: Loop) -> None:
    needs_root()
    stranger_socket, stranger_heard = listen(loop)
    with say_as_a_stranger(stranger_socket.name) as child:
        child.wait_to_hear("ready")
        child.go()
        child.wait_to_hear("said")
        with sender_to(stranger_socket.name) as sender:
            sender.send(b"STATUS=after")
        run_until(loop, lambda: stranger_heard)
        assert stranger_heard == [{"STATUS": "after"}]
    stranger_socket.close()

    worker_socket = NotifySocket(loop, "7")
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


@pytest.fixture
def manager_socket(free_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(free_path / "notify"))
        manager.settimeout(10)
        yield manager


def test_our_own_manager_is_told_and_its_variables_are_not_passed_on(
    manager_socket: socket.socket,
) -> None:
    loop = Loop()
    environment = {
        "NOTIFY_SOCKET": manager_socket.getsockname(),
        "WATCHDOG_USEC": "20000",
        "WATCHDOG_PID": str(os.getpid()),
        "OTHER": "stays",
    }
    manager = Manager(loop, environment)
    assert environment == {"OTHER": "stays"}
    assert manager_socket.recv(100) == b"WATCHDOG=1"
    manager.say("READY=1", "STATUS=fine")
    assert manager_socket.recv(100) == b"READY=1\nSTATUS=fine"
    manager.say_reloading()
    reloading, moment = manager_socket.recv(100).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert moment.startswith(b"MONOTONIC_USEC=")
    manager_socket.settimeout(0)
    beats: list[bytes] = []

    def beat() -> bool:
        try:
            beats.append(manager_socket.recv(100))
        except BlockingIOError:
            return False
        return len(beats) >= 3

    run_until(loop, beat)
    assert set(beats) == {b"WATCHDOG=1"}
    manager.close()
    loop.close()


def test_a_watchdog_for_another_process_is_not_ours(manager_socket: socket.socket) -> None:
    loop = Loop()
    path = manager_socket.getsockname()
    manager = Manager(loop, {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    manager_socket.settimeout(0)
    with pytest.raises(BlockingIOError):
        manager_socket.recv(100)
    manager.close()
    loop.close()


def test_a_manager_that_is_gone_or_full_holds_nobody_up(
    manager_socket: socket.socket, free_path: Path
) -> None:
    loop = Loop()
    manager = Manager(loop, {"NOTIFY_SOCKET": manager_socket.getsockname()})
    for _ in range(10_000):  # nobody reads
        manager.say("STATUS=busy")
    (free_path / "notify").unlink()
    manager.say("STATUS=gone")
    manager.close()
    manager.say("STATUS=closed")
    nobody = Manager(loop, {})
    nobody.say("STATUS=nobody")
    nobody.close()
    loop.close()
