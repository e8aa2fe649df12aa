"""When there is no room: for descriptors, in sockets, in pipes. And what a process may have."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sengu.posix import packets
from sengu.wire import supervisor as wire
from tests.kernel.supervised import MAIN, PATIENCE_SECONDS, Server, Supervised, ended, read_to_end

pytestmark = pytest.mark.usefixtures("nothing_left")


def output_of(server: Server, key: str, *argv: str, **how: object) -> str:
    read_end, write_end = os.pipe()
    server.spawned(key, *argv, placed={1: write_end}, **how)
    os.close(write_end)
    text = read_to_end(read_end)
    server.hear(wire.Exited)
    return text


@contextmanager
def limited(supervisor: Supervised, limit: int) -> Iterator[None]:
    """The supervisor may open no descriptor from that number on."""
    before = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have exited
            resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def room_for(supervisor: Supervised, more: int) -> Iterator[None]:
    """The supervisor may open so many more descriptors."""
    wait_until_it_sleeps(supervisor)  # what it was passed last is closed then
    used = {int(fd) for fd in os.listdir(f"/proc/{supervisor.pid}/fd")}
    limit = 0
    while more or limit in used:
        more -= limit not in used
        limit += 1
    with limited(supervisor, limit):
        yield


def wait_until_it_sleeps(supervisor: Supervised) -> None:
    stat = Path(f"/proc/{supervisor.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        assert not ended(supervisor.pidfd, 0.001)


# No room for descriptors.


def test_what_cannot_be_held_is_not_in_the_store(supervisor: Supervised, server: Server) -> None:
    server.say(wire.Hold("pipe", "old"), 0)
    server.spawned("worker/1", "sleep", "1000")
    with room_for(supervisor, 0):
        server.say(wire.Hold("pipe", "new"), 0)
        server.say(wire.Hold("words", "need no room"))
        server.say(wire.Spawn("worker/2"))
        server.hear(wire.Refused)
    server.kill()
    assert list(supervisor.server().inherit().held) == ["births", "words"]
    assert "[b'hold', b'pipe', b'new']: [Errno 24] Too many open files" in supervisor.log


@pytest.mark.parametrize("room", [0, 1])  # for its document, but not for its pidfd
def test_a_process_that_there_is_no_room_for_is_refused(
    supervisor: Supervised, server: Server, room: int
) -> None:
    with room_for(supervisor, room):
        server.spawn("worker/1", "sleep", "1000")
        assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EMFILE)
    server.spawned("worker/1", "sleep", "1000")
    assert len(children_of(supervisor)) == 2


BIRTH = """
import array, os, socket
births = socket.socket(fileno=3)
os.read(0, 1)
if os.fork() == 0:
    pid = os.fork()
    if pid == 0:
        os.read(0, 1)
    rights = array.array("i", [os.pidfd_open(pid)])
    births.sendmsg([b"worker/1\\0%d" % pid], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os._exit(0)
os.wait()
os.read(0, 1)
"""


def test_a_worker_that_is_born_without_room_is_ended(supervisor: Supervised) -> None:
    server = supervisor.server()
    births = server.inherit().held["births"].fd
    assert births is not None
    wait, go = os.pipe()
    server.spawned("fork", sys.executable, "-ISc", BIRTH, placed={3: births, 0: wait})
    os.close(wait)
    with room_for(supervisor, 0):
        os.write(go, b"g")
        assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EMFILE)
    while len(children_of(supervisor)) > 2:  # the worker is killed, and reaped as a stranger
        assert server.hears_nothing()
    os.close(go)


@pytest.mark.parametrize("data", [b"", b"worker/1", b"worker/1\0-1", b"worker/1\x000", b"w\0x"])
def test_nonsense_about_births_does_no_harm(supervisor: Supervised, data: bytes) -> None:
    server = supervisor.server()
    fd = server.inherit().held["births"].fd
    assert fd is not None
    with socket.socket(fileno=os.dup(fd)) as births:
        packets.send(births, data)
    server.spawn("worker/2", "sleep", "1000")
    while not isinstance(message := server.hear_any()[0], wire.Spawned):
        assert isinstance(message, wire.Refused)


def test_no_room_for_a_server_is_waited_for_while_workers_live(free_path: Path) -> None:
    main = free_path / "main.py"
    text = MAIN.with_name("main.py").read_text()
    main.write_text(text.replace("MAX_DELAY_SECONDS = 5.0", "MAX_DELAY_SECONDS = 0.05"))
    with Supervised(free_path, main=main) as supervisor:
        server = supervisor.begun()
        worker = server.spawned("worker/1", "sleep", "1000")
        with limited(supervisor, 0):
            server.kill()
            while supervisor.log.count("cannot start the server: Too many open files") < 10:
                assert not ended(supervisor.pidfd, 0.01)
        assert supervisor.server().inherit().kin["worker/1"].pid == worker.pid


def test_who_wants_to_end_it_does_not_wait_for_room(supervisor: Supervised, server: Server) -> None:
    server.spawned("worker/1", "sleep", "1000")
    with limited(supervisor, 0):
        supervisor.signal(signal.SIGTERM)
        server.hear(wire.Signal)
        server.kill()
        assert supervisor.wait() == 1
    assert "giving up" in supervisor.log


def test_without_room_to_follow_itself_the_old_server_goes_on(
    supervisor: Supervised, server: Server
) -> None:
    server.say(wire.Upgrade())
    server.hear(wire.Pause)
    with room_for(supervisor, 0):
        server.say(wire.Paused())
        resume = server.hear(wire.Resume)
    assert resume.problem == "cannot execute it: Too many open files"
    supervisor.signal(signal.SIGHUP)
    assert server.hear(wire.Signal).number == signal.SIGHUP


def test_signals_that_nobody_answers_do_not_drown_another(
    supervisor: Supervised, server: Server
) -> None:
    for _ in range(64):
        supervisor.signal(signal.SIGWINCH)
        server.hear(wire.Signal)
    supervisor.signal(signal.SIGTERM)
    assert server.hear(wire.Signal).number == signal.SIGTERM


def children_of(supervisor: Supervised) -> list[str]:
    return Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()


# No room in sockets and pipes.


def test_what_a_busy_server_does_not_read_waits_in_order(
    supervisor: Supervised, server: Server
) -> None:
    count = 1000
    for number in range(count):
        server.say(wire.Spawn(f"worker/{number}"))
    wait_until_it_sleeps(supervisor)  # it does not even look whether there is room
    for number in range(count):
        assert server.hear(wire.Refused).key == f"worker/{number}"


def test_a_line_that_nobody_reads_is_cut_and_lost(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x" * (65536 - 4096))
    server.say(wire.Output(), write_end)
    for _ in range(3):
        packets.send(server.socket, b"sing\0" + b"a song " * 8000)
    server.spawned("worker/1", "true")
    os.close(write_end)
    os.close(read_end)


# What a process may have.


def test_a_process_may_have_the_limit_that_was_before_ours(free_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    with Supervised(free_path) as supervisor:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server = supervisor.begun()
        for _ in range(2):
            script = "ulimit -n; ulimit -Hn"
            assert output_of(server, "worker/1", "sh", "-c", script) == f"{hard}\n{hard}\n"
            text = output_of(server, "worker/2", "sh", "-c", script, file_limit=True)
            assert text == f"{hard - 1}\n{hard}\n"
            for key in ("worker/1", "worker/2"):
                server.say(wire.Reap(key))
                server.hear(wire.Gone)
            server.say(wire.Ready())
            server.say(wire.Upgrade())
            server.hear(wire.Pause)
            server.say(wire.Paused())
            server = supervisor.begun()


def test_a_process_enters_its_cgroup(server: Server, tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    assert output_of(server, "worker/1", "echo", "runs", cgroup=str(procs)) == "runs\n"
    assert procs.read_text() == "0"


def test_a_cgroup_that_cannot_be_entered_is_none(server: Server, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert output_of(server, "worker/1", "echo", "runs", cgroup=missing) == "runs\n"


# The service manager, and how it is started.


@pytest.mark.parametrize("is_abstract", [True, False])
def test_the_manager_hears_it_from_the_main_process(free_path: Path, is_abstract: bool) -> None:
    path = str(free_path / "manager")
    address = f"@{path}" if is_abstract else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(PATIENCE_SECONDS)
        manager.bind(f"\0{path}" if is_abstract else path)
        with Supervised(free_path, variables={"NOTIFY_SOCKET": address}) as supervisor:
            supervisor.begun().say(wire.Notify("READY=1\nSTATUS=größer"))
            data, control, _, _ = manager.recvmsg(100, 100)
            assert data.decode() == "READY=1\nSTATUS=größer"
            assert int.from_bytes(control[0][2][:4], sys.byteorder) == supervisor.pid


@pytest.mark.parametrize("address", ["", "/no/such/manager"])
def test_a_manager_that_is_not_there_hears_nothing(free_path: Path, address: str) -> None:
    with Supervised(free_path, variables={"NOTIFY_SOCKET": address}) as supervisor:
        server = supervisor.begun()
        server.say(wire.Notify("READY=1"))
        server.spawned("worker/1", "true")
        assert "notify" not in supervisor.log


@pytest.mark.parametrize("arguments", [[], ["boot=3"], ["name=site", "boot"], ["name=x", "a=b"]])
def test_who_starts_it_by_hand_is_told_how_to(arguments: list[str]) -> None:
    argv = [sys.executable, "-I", "-S", str(MAIN), *arguments]
    process = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert process.returncode == 2
    assert process.stderr == (
        "sengu: this is the supervisor, which needs name=TEXT [NAME=FD...]; "
        "start it by `sengu start` or `sengu serve`\n"
    )


def test_a_late_server_is_killed_and_replaced(free_path: Path) -> None:
    main = free_path / "main.py"
    text = MAIN.with_name("main.py").read_text()
    main.write_text(text.replace("READY_SECONDS = 30.0", "READY_SECONDS = 5.0"))
    with Supervised(free_path, main=main) as supervisor:
        server = supervisor.begun()
        server.wait()
        assert "was not ready within 5 s; its stacks follow, then it is killed" in supervisor.log
        server = supervisor.server()
        server.say(wire.Ready())
        server.inherit()
        assert not ended(server.pidfd, 5.2)
