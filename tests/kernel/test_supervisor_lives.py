"""The lives of the server, and the end of the supervisor."""

import ctypes
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sengu.posix import packets
from sengu.supervisor.main import (
    MAX_DEATHS,
    MAX_FAILURES,
    MAX_FAILURES_WHILE_SERVING,
    Restarts,
)
from sengu.wire import supervisor as wire
from tests.kernel.supervised import MAIN, Server, Supervised, ended, read_to_end

pytestmark = pytest.mark.usefixtures("nothing_left")

MAX_UNIQUE_BYTES = 8 << 20


# Restarts.


def test_the_first_death_costs_no_time_the_next_ones_ever_more() -> None:
    restarts = Restarts()
    delays = [restarts.after_death(0.0, 0.0) for _ in range(MAX_DEATHS)]
    assert delays[:5] == [0, 0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [5.0, None]


def test_servers_that_are_never_ready_are_given_up_soon() -> None:
    restarts = Restarts()
    delays = [restarts.after_death(0.0, None) for _ in range(MAX_FAILURES)]
    assert delays == [0, 0.1, 0.2, 0.4, None]


def test_while_workers_serve_a_package_may_be_missing_for_some_seconds() -> None:
    restarts = Restarts()
    most = MAX_FAILURES_WHILE_SERVING
    delays = [restarts.after_death(0.0, None, is_serving=True) for _ in range(most)]
    assert sum(delay or 0.0 for delay in delays) > 15
    assert delays[-1] is None


def test_a_server_that_was_ready_is_no_failure() -> None:
    restarts = Restarts()
    lives = [None] * (MAX_FAILURES - 1) + [100.0] + [None] * (MAX_FAILURES - 1)
    assert None not in [restarts.after_death(100.0, ready_at) for ready_at in lives]


def test_a_ready_server_that_others_kill_is_followed_at_once_each_time() -> None:
    restarts = Restarts()
    delays = [restarts.after_death(0.0, 0.0, was_killed=True) for _ in range(3 * MAX_DEATHS)]
    assert set(delays) == {0.0}
    delays = [restarts.after_death(0.0, None, was_killed=True) for _ in range(MAX_FAILURES)]
    assert delays[-1] is None


def test_a_server_that_was_ready_for_long_makes_up_for_those_before() -> None:
    restarts = Restarts()
    delays = [restarts.after_death(100.0, ready_at) for ready_at in (None, 99.0, 98.0, None)]
    assert delays == [0.0, 0.1, 0.0, 0.1]


def test_a_dead_server_is_replaced_and_the_workers_live_on(
    supervisor: Supervised, server: Server
) -> None:
    kin = server.spawned("worker/1", "sleep", "1000")
    server.kill()
    server = supervisor.server()
    assert server.inherit().kin["worker/1"].pid == kin.pid
    assert re.search(r"the server \(pid \d+\) has ended \(signal KILL\); .* now", supervisor.log)
    server.exit(9)
    supervisor.begun()
    assert re.search(r"has ended \(exit status 9\); .* in 0.1 s", supervisor.log)


def test_a_server_that_dies_again_and_again_is_given_up(free_path: Path) -> None:
    with Supervised(free_path, expects_servers=False) as supervisor:
        assert supervisor.wait() == 1
        assert supervisor.log.count("a new one is started") == MAX_FAILURES - 1
        assert ", as 4 before it; giving up: all processes get TERM, and KILL" in supervisor.log


def be_given_up(supervisor: Supervised, server: Server) -> None:
    """Servers die, one after the other, and none was ready, while workers serve."""
    for _ in range(MAX_FAILURES_WHILE_SERVING - 1):
        server.kill()
        server = supervisor.begun()
    server.kill()


def test_giving_up_ends_the_workers_as_the_policy_says(
    supervisor: Supervised, server: Server
) -> None:
    read_end, write_end = os.pipe()
    script = "trap 'echo asked; exit' INT; echo trapped; while :; do sleep 0.01; done"
    server.spawned("worker/1", "sh", "-c", script, placed={1: write_end})
    # Its child is in its group, and ignores what is asked of it, as it does itself.
    script = "trap '' INT; sleep 1000 & echo trapped; wait"
    server.spawned("worker/2", "sh", "-c", script, placed={1: write_end})
    os.close(write_end)
    said = b""
    while said.count(b"trapped") < 2:
        said += os.read(read_end, 100)
    server.say(wire.Policy(signal.SIGINT, 5000))
    be_given_up(supervisor, server)
    assert supervisor.wait() == 1
    assert read_to_end(read_end) == "asked\n"
    assert "all processes get INT, and KILL after 5 s" in supervisor.log


def test_who_does_not_want_to_wait_for_the_grace_sends_another_signal(
    supervisor: Supervised, server: Server
) -> None:
    kin = server.spawned("worker/1", "sh", "-c", "trap '' TERM; echo trapped; sleep 1000")
    server.say(wire.Policy(signal.SIGTERM, 1_000_000))
    be_given_up(supervisor, server)
    while "giving up" not in supervisor.log:
        assert not ended(kin.pidfd, 0.01)
    supervisor.signal(signal.SIGINT)
    assert supervisor.wait() == 1


# The end of the service.


@pytest.mark.parametrize("code", [0, 3])
def test_the_supervisor_exits_with_what_the_server_says(
    supervisor: Supervised, server: Server, code: int
) -> None:
    server.say(wire.End(code))
    server.exit(0)
    assert supervisor.wait() == code


def test_what_is_left_in_the_end_is_killed(supervisor: Supervised, server: Server) -> None:
    kin = server.spawned("worker/1", "sh", "-c", "trap '' TERM; sleep 1000")
    server.say(wire.End(0))
    server.kill()
    assert supervisor.wait() == 0
    assert ended(kin.pidfd, 0)


def test_the_supervisors_own_death_is_told_to_all(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    usual = server.spawned("worker/1", "sh", "-c", "echo; exec sleep 1000", placed={1: write_end})
    assert os.read(read_end, 10) == b"\n"
    script = "trap 'exit 5' HUP; echo; while :; do sleep 0.01; done"
    other = server.spawned(
        "worker/2", "sh", "-c", script, placed={1: write_end}, death_signal=signal.SIGHUP
    )
    os.close(write_end)
    assert os.read(read_end, 10) == b"\n"
    supervisor.signal(signal.SIGKILL)
    assert packets.receive(server.socket) == (b"", [])
    assert ended(usual.pidfd)
    assert ended(other.pidfd)
    os.close(read_end)
    assert os.waitpid(usual.pid, 0)[1] == signal.SIGTERM
    assert os.waitpid(other.pid, 0)[1] == 5 << 8


# KILL in the middle.


def spawn_unheard(server: Server) -> None:
    server.spawn("worker/9", "sleep", "1000")


def hold_unheard(server: Server) -> None:
    server.say(wire.Hold("late", "held"))


def drop_unheard(server: Server) -> None:
    server.say(wire.Drop("early"))


def reap_unheard(server: Server) -> None:
    server.say(wire.Reap("dead"))


def say_heard_unheard(server: Server) -> None:
    server.say(wire.Heard(signal.SIGHUP))


@pytest.mark.parametrize(
    "last_words",
    [spawn_unheard, hold_unheard, drop_unheard, reap_unheard, say_heard_unheard],
)
@pytest.mark.parametrize("reads", [True, False], ids=["heard all", "unread words"])
def test_the_last_words_of_a_killed_server_count(
    supervisor: Supervised, server: Server, last_words: Callable[[Server], None], reads: bool
) -> None:
    server.say(wire.Hold("early", "held"))
    server.spawned("dead", "true")
    server.hear(wire.Exited)
    supervisor.signal(signal.SIGHUP)
    server.hear(wire.Signal)
    if not reads:  # then the other end finds an error before it finds what was said
        server.spawn("worker/1", "true")
        assert select.select([server.socket], [], [], 20)[0]
    supervisor.signal(signal.SIGSTOP)
    last_words(server)
    server.kill()
    supervisor.signal(signal.SIGCONT)
    inherited = supervisor.server().inherit()
    assert ("worker/9" in inherited.kin) == (last_words is spawn_unheard)
    assert ("late" in inherited.held) == (last_words is hold_unheard)
    assert ("early" not in inherited.held) == (last_words is drop_unheard)
    assert ("dead" not in inherited.kin) == (last_words is reap_unheard)
    has_heard = signal.SIGHUP not in inherited.signals  # of CONT, by which it goes on, too
    assert has_heard == (last_words is say_heard_unheard)


def test_a_server_may_be_killed_before_it_has_heard_anything(supervisor: Supervised) -> None:
    supervisor.server().kill()
    supervisor.server().kill()
    assert list(supervisor.server().inherit().held) == ["births"]


def test_the_last_word_may_be_the_end(supervisor: Supervised, server: Server) -> None:
    supervisor.signal(signal.SIGSTOP)
    server.say(wire.End(4))
    server.kill()
    supervisor.signal(signal.SIGCONT)
    assert supervisor.wait() == 4


# A stuck server.


def timer(seconds: float) -> int:
    """A timer that is wound up (timerfd_create(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
    wind_up(fd, seconds)
    return fd


def wind_up(fd: int, seconds: float) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    whole = int(seconds)
    moment = (ctypes.c_long * 4)(0, 0, whole, int((seconds - whole) * 1e9))
    assert libc.timerfd_settime(fd, 0, moment, None) == 0, ctypes.get_errno()


def test_a_server_whose_beat_stops_is_made_to_tell_where_it_is(
    supervisor: Supervised, server: Server
) -> None:
    beat = timer(0.05)
    server.say(wire.Hold("beat"), beat)
    server.wait()
    supervisor.begun()
    assert "is stuck" in supervisor.log
    assert "has ended (signal ABRT)" in supervisor.log
    os.close(beat)


def test_one_that_does_not_even_do_that_is_killed(supervisor: Supervised, server: Server) -> None:
    server.be_deaf()
    beat = timer(0.05)
    server.say(wire.Hold("beat"), beat)
    server.wait()
    supervisor.begun()
    assert "has ended (signal KILL)" in supervisor.log
    os.close(beat)


def test_one_that_is_stopped_can_tell_where_it_is_too(
    supervisor: Supervised, server: Server
) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    beat = timer(0.05)
    server.say(wire.Hold("beat"), beat)
    server.wait()
    supervisor.begun()
    assert "has ended (signal ABRT)" in supervisor.log
    os.close(beat)


def test_a_beat_that_is_kept_up_does_no_harm(supervisor: Supervised, server: Server) -> None:
    beat = timer(1000)
    server.say(wire.Hold("beat"), beat)
    wind_up(beat, 2000)
    server.spawned("worker/1", "true")
    server.say(wire.Drop("beat"))
    wind_up(beat, 0.001)
    select.select([beat], [], [])
    server.hear(wire.Exited)
    server.spawned("worker/2", "true")
    assert "stuck" not in supervisor.log
    os.close(beat)


def test_a_beat_is_of_one_life(supervisor: Supervised, server: Server) -> None:
    beat = timer(1000)
    server.say(wire.Hold("beat"), beat)
    server.kill()
    second = supervisor.server()
    assert "beat" not in second.inherit().held
    wind_up(beat, 0.001)
    select.select([beat], [], [])
    second.spawned("worker/1", "true")
    assert "stuck" not in supervisor.log
    os.close(beat)


# What it costs.


def unique_bytes(pid: int) -> int:
    unique = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, *_ = line.split()
        if name.startswith("Private_"):
            unique += int(amount) << 10
    return unique


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_supervisor_is_small_also_with_many_processes(
    supervisor: Supervised, server: Server
) -> None:
    kin = []
    for number in range(1000):
        kin.append(server.spawned(f"worker/{number}", "sleep", "1000"))
        server.say(wire.Hold(f"notify/{number}", "x" * 50), 0)
        server.say(wire.Hold(f"output/{number}/1"), 0)
        server.say(wire.Hold(f"output/{number}/2"), 0)
    for worker in kin:  # until it is executed it shares the supervisor's memory
        while not Path(f"/proc/{worker.pid}/cmdline").read_bytes().startswith(b"sleep"):
            assert not ended(worker.pidfd, 0.001)
    print(f"unique: {unique_bytes(supervisor.pid) >> 10} kB")
    assert unique_bytes(supervisor.pid) <= MAX_UNIQUE_BYTES
    # And quick, though none is reaped before all have ended.
    before = cpu_seconds(supervisor.pid)
    for worker in kin:
        os.kill(worker.pid, signal.SIGKILL)
        server.hear(wire.Exited)
    for number in range(1000):
        server.say(wire.Reap(f"worker/{number}"))
        server.hear(wire.Gone)
    used = cpu_seconds(supervisor.pid) - before
    print(f"1000 ends: {used:.2f} s of CPU")
    assert used <= 1.0


def switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_the_supervisor_sleeps_while_nothing_happens(
    supervisor: Supervised, server: Server
) -> None:
    kin = server.spawned("worker/1", "sleep", "1000")
    server.say(wire.Ready())
    beat = timer(1000)
    server.say(wire.Hold("beat"), beat)
    server.spawned("worker/1")
    before = switches(supervisor.pid)
    assert not ended(kin.pidfd, 1.5)
    assert switches(supervisor.pid) - before <= 1  # falling asleep after the answer
    os.close(beat)


def test_the_file_runs_alone(tmp_path: Path) -> None:
    alone = tmp_path / "alone.py"
    alone.write_bytes(MAIN.with_name("main.py").read_bytes())
    code = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-I", "-S", str(alone), "--check"])
    assert code == 1
    argv = [sys.executable, "-I", "-S", str(alone), "--check", str(wire.VERSION)]
    assert os.spawnv(os.P_WAIT, sys.executable, argv) == 0
