"""The supervisor follows itself: same pid, same processes, a way back until the end."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.wire import supervisor as wire
from tests.kernel.supervised import MAIN, Server, Supervised, ended

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def supervisor(free_path: Path) -> Iterator[Supervised]:
    for name in ("__main__.py", "main.py"):
        shutil.copy(MAIN.with_name(name), free_path)
    with Supervised(free_path, main=free_path / "__main__.py") as supervisor:
        yield supervisor


@pytest.fixture
def server(supervisor: Supervised) -> Server:
    server = supervisor.begun()
    server.say(wire.Ready())
    return server


def on_trial(supervisor: Supervised, server: Server) -> Server:
    """Upgrade until the new server has begun."""
    server.say(wire.Upgrade())
    server.hear(wire.Pause)
    server.say(wire.Paused())
    return supervisor.server()


def replace_in_file(supervisor: Supervised, old: str, new: str) -> None:
    file = supervisor.main.with_name("main.py")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_upgrade_keeps_the_pid_and_all_there_is(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Hold("pipe", "a note"), write_end)
    server.say(wire.Hold("words", ""))
    server.say(wire.Policy(signal.SIGINT, 1500))
    living = server.spawned("worker/1", "sleep", "1000")
    dead = server.spawned("worker/2", "sh", "-c", "exit 3")
    server.hear(wire.Exited)
    replace_in_file(supervisor, "upgraded: the new", "this is new: the new")
    new = on_trial(supervisor, server)
    inherited = new.inherit()
    assert inherited.main_pid == supervisor.pid
    assert inherited.is_trial
    assert list(inherited.held) == ["births", "pipe", "words"]
    pipe = inherited.held["pipe"]
    assert pipe.note == "a note"
    assert pipe.fd is not None
    assert os.path.sameopenfile(pipe.fd, write_end)
    assert inherited.kin["worker/1"].pid == living.pid
    assert inherited.kin["worker/1"].status is None
    assert inherited.kin["worker/2"][:2] == (dead.pid, 3 << 8)
    assert not ended(server.pidfd, 0)
    new.say(wire.Ready())
    assert ended(server.pidfd)
    assert "this is new" in supervisor.log
    # It is still their parent.
    os.kill(living.pid, signal.SIGTERM)
    assert new.hear(wire.Exited) == wire.Exited("worker/1", signal.SIGTERM)
    new.say(wire.Reap("worker/1"))
    new.say(wire.Reap("worker/2"))
    new.say(wire.End(0))
    new.exit()
    assert supervisor.wait() == 0
    os.close(read_end)
    os.close(write_end)


def test_an_upgrade_keeps_what_processes_have_left(supervisor: Supervised, server: Server) -> None:
    script = "trap '' TERM; sleep 1000 & exit 3"
    kin = server.spawned("worker/1", "sh", "-c", script)
    server.hear(wire.Exited)
    server.say(wire.Reap("worker/1"))
    new = on_trial(supervisor, server)
    assert new.inherit().kin["worker/1"][:2] == (kin.pid, 3 << 8)
    new.say(wire.Reap("worker/1"))
    os.killpg(kin.pid, signal.SIGKILL)
    assert new.hear(wire.Gone) == wire.Gone("worker/1")


def test_an_upgrade_keeps_in_mind_who_outlives_it(supervisor: Supervised, server: Server) -> None:
    log = server.spawned("log", "sleep", "1000", death_signal=0)
    new = on_trial(supervisor, server)
    new.inherit()
    new.say(wire.Ready())
    new.say(wire.End(0))
    new.exit()
    assert supervisor.wait() == 0
    assert not ended(log.pidfd, 0)


def test_an_upgrade_during_another_is_refused(supervisor: Supervised, server: Server) -> None:
    for _ in range(2):
        server.say(wire.Upgrade())
    told = [server.hear_any()[0] for _ in range(2)]  # in the order in which it came to that
    assert wire.Pause() in told
    assert wire.Resume("an upgrade is going on already") in told


def test_after_an_upgrade_nothing_leaks_into_processes(
    supervisor: Supervised, server: Server
) -> None:
    server.say(wire.Hold("pipe", ""), 0)
    new = on_trial(supervisor, server)
    new.inherit()
    new.say(wire.Ready())
    assert new.fds.count(",") <= 5, new.fds
    ours, theirs = socket.socketpair()
    with ours, theirs:
        placed = dict.fromkeys((0, 1), theirs.fileno())
        kin = new.spawned("worker/1", "sh", "-c", "echo; read line", placed=placed)
        assert ours.recv(1) == b"\n"  # it is executed by now
        assert sorted(os.listdir(f"/proc/{kin.pid}/fd")) == ["0", "1", "2"]


def test_an_upgrade_may_follow_another(supervisor: Supervised, server: Server) -> None:
    for _ in range(3):
        new = on_trial(supervisor, server)
        new.inherit()
        new.say(wire.Ready())
        assert ended(server.pidfd)
        server = new
    assert supervisor.log.count("] upgraded:") == 3
    # 0 to 2, epoll, the signals' pipe, the births' pair and room, the server's socket and pidfd.
    while len(os.listdir(f"/proc/{supervisor.pid}/fd")) > 3 + 1 + 2 + 3 + 2:
        assert not ended(supervisor.pidfd, 0.01)  # the old server has ended, but is not reaped yet


def test_the_title_is_written_anew(supervisor: Supervised, server: Server) -> None:
    title = Path(f"/proc/{supervisor.pid}/cmdline")
    assert title.read_bytes().rstrip(b"\0") == b"sengu: under-test: supervisor"
    on_trial(supervisor, server).inherit()
    assert title.read_bytes().rstrip(b"\0") == b"sengu: under-test: supervisor"


@pytest.mark.parametrize("text", ["this is no Python\n", "import sys; sys.exit(4)\n", ""])
def test_a_file_that_cannot_run_is_not_executed(
    supervisor: Supervised, server: Server, text: str
) -> None:
    supervisor.main.with_name("main.py").write_text(text)
    server.say(wire.Upgrade())
    assert "the new supervisor cannot run (exit status" in server.hear(wire.Resume).problem
    assert "not upgraded: the new supervisor cannot run" in supervisor.log
    server.spawned("worker/1", "true")


def test_a_new_server_that_exits_leaves_the_old_one_going(
    supervisor: Supervised, server: Server
) -> None:
    new = on_trial(supervisor, server)
    new.inherit()
    new.exit(1)
    server.hear(wire.Resume)
    assert "not upgraded: the new server has ended (exit status 1)" in supervisor.log
    server.spawned("worker/1", "true")
    server.kill()
    supervisor.begun()


def test_a_new_server_that_says_the_end_is_no_end(supervisor: Supervised, server: Server) -> None:
    new = on_trial(supervisor, server)
    new.inherit()
    new.say(wire.End(1))
    new.exit()
    server.hear(wire.Resume)


def test_a_new_server_that_takes_too_long_is_killed(supervisor: Supervised, server: Server) -> None:
    replace_in_file(supervisor, "READY_SECONDS = 30.0", "READY_SECONDS = 0.1")
    server.say(wire.Upgrade())
    server.hear(wire.Pause)
    server.say(wire.Paused())
    assert server.hear(wire.Resume).problem == "the new server was not ready within 0.1 s"
    assert "not upgraded: the new server was not ready within 0.1 s" in supervisor.log


def test_an_old_server_that_does_not_pause_goes_on(free_path: Path) -> None:
    main = free_path / "main.py"  # which runs alone too
    main.write_text(
        MAIN.with_name("main.py")
        .read_text()
        .replace("PAUSE_SECONDS = 10.0", "PAUSE_SECONDS = 0.05")
    )
    with Supervised(free_path, main=main) as supervisor:
        server = supervisor.begun()
        server.say(wire.Upgrade())
        server.hear(wire.Pause)
        server.hear(wire.Resume)
        server.say(wire.Paused())  # too late
        server.spawned("worker/1", "true")


def test_what_happens_meanwhile_is_told_to_both(supervisor: Supervised, server: Server) -> None:
    server.spawned("worker/1", "sh", "-c", "read line; exit 3", placed={0: (pipe := os.pipe())[0]})
    new = on_trial(supervisor, server)
    new.inherit()
    os.close(pipe[1])
    os.close(pipe[0])
    assert new.hear(wire.Exited) == wire.Exited("worker/1", 3 << 8)
    assert server.hear(wire.Exited) == wire.Exited("worker/1", 3 << 8)
    kin = new.spawned("worker/2", "sleep", "1000")
    assert server.hear(wire.Spawned) == wire.Spawned("worker/2", kin.pid)


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_signal_in_an_upgrade_waits_for_its_outcome(
    supervisor: Supervised, server: Server, succeeds: bool
) -> None:
    server.say(wire.Upgrade())
    server.hear(wire.Pause)
    supervisor.signal(signal.SIGHUP)
    server.say(wire.Paused())
    new = supervisor.server()
    assert new.inherit().signals == []
    supervisor.signal(signal.SIGTERM)
    if succeeds:
        new.say(wire.Ready())
        heir = new
    else:
        new.kill()
        server.hear(wire.Resume)
        heir = server
    assert {heir.hear(wire.Signal).number for _ in range(2)} == {signal.SIGHUP, signal.SIGTERM}


def test_an_old_server_that_dies_meanwhile_is_not_missed(
    supervisor: Supervised, server: Server
) -> None:
    new = on_trial(supervisor, server)
    new.inherit()
    server.kill()
    new.say(wire.Ready())
    new.spawned("worker/1", "true")


def test_if_both_die_there_is_another(supervisor: Supervised, server: Server) -> None:
    kin = server.spawned("worker/1", "sleep", "1000")
    new = on_trial(supervisor, server)
    new.inherit()
    server.kill()
    new.kill()
    inherited = supervisor.server().inherit()
    assert inherited.kin["worker/1"].pid == kin.pid
    assert not inherited.is_trial


def test_a_server_that_dies_before_it_has_paused_ends_the_upgrade(
    supervisor: Supervised, server: Server
) -> None:
    server.say(wire.Upgrade())
    server.hear(wire.Pause)
    server.kill()
    server = supervisor.begun()
    server.say(wire.Paused())
    server.spawned("worker/1", "sleep", "1000")
    on_trial(supervisor, server).inherit()
