"""What the supervisor holds and forks for the server, and what it tells it."""

import errno
import os
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from sengu.posix import packets
from sengu.wire import supervisor as wire
from tests.kernel.supervised import Server, Supervised, ended, read_to_end
from tests.processes import INTERNAL_SIGNALS

pytestmark = pytest.mark.usefixtures("nothing_left")


def output_of(server: Server, key: str, *argv: str, fd: int = 1, **how: object) -> str:
    """What a process writes to its descriptor `fd`; it has exited then, and is reaped."""
    read_end, write_end = os.pipe()
    server.spawned(key, *argv, placed={fd: write_end}, **how)
    os.close(write_end)
    text = read_to_end(read_end)
    server.hear(wire.Exited)
    server.say(wire.Reap(key))
    assert server.hear(wire.Gone).key == key
    return text


# The store.


def test_a_server_begins_by_hearing_all_there_is(free_path: Path) -> None:
    read_end, write_end = os.pipe()
    with Supervised(free_path, held={"boot": read_end, "inherited/3": write_end}) as supervisor:
        server = supervisor.server()
        inherited = server.inherit()
        assert inherited.main_pid == supervisor.pid
        assert not inherited.is_trial
        assert list(inherited.held) == ["boot", "inherited/3", "births"]
        assert not inherited.kin
        assert not inherited.signals
        for name, fd in (("boot", read_end), ("inherited/3", write_end)):
            theirs = inherited.held[name].fd
            assert theirs is not None
            assert os.path.sameopenfile(theirs, fd)
    os.close(read_end)
    os.close(write_end)


def test_the_next_server_gets_what_was_held(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Hold("journal", "first"), read_end)
    server.say(wire.Hold("gone", ""), read_end)
    server.say(wire.Hold("pipe", "größer\nlines"), read_end)
    server.say(wire.Hold("words", "no descriptor"))
    server.say(wire.Hold("journal", "second"), write_end)
    server.say(wire.Drop("gone"))
    server.say(wire.Drop("never there"))
    server.kill()
    held = supervisor.server().inherit().held
    assert list(held) == ["births", "pipe", "words", "journal"]
    assert held["words"] == ("no descriptor", None)
    assert held["pipe"].note == "größer\nlines"
    note, journal = held["journal"]
    assert (note, journal is not None) == ("second", True)
    assert journal is not None
    assert os.path.sameopenfile(journal, write_end)
    os.close(read_end)
    os.close(write_end)


def test_what_is_dropped_is_closed(server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Hold("pipe", ""), write_end)
    os.close(write_end)
    server.say(wire.Drop("pipe"))
    assert read_to_end(read_end) == ""


def test_what_is_replaced_is_closed(server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Hold("pipe", ""), write_end)
    os.close(write_end)
    server.say(wire.Hold("pipe", "no descriptor"))
    assert read_to_end(read_end) == ""


def test_more_is_handed_over_than_a_socket_takes_at_once(
    supervisor: Supervised, server: Server
) -> None:
    names = [f"pipe/{number}" for number in range(1500)]
    for name in names:
        server.say(wire.Hold(name, ""), 0)
    server.kill()
    assert list(supervisor.server().inherit().held) == ["births", *names]


# Processes.


def test_a_process_becomes_what_its_document_says(server: Server, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "print(os.getcwd(), sys.argv[1:], dict(os.environ), os.getsid(0) == os.getpid())"
    )
    text = output_of(
        server,
        "worker/1",
        *(sys.executable, "-I", "-S", "-c", code, "", "two words"),
        environment={"FIRST": "a=b\nc", "SECOND": ""},
        directory=str(tmp_path),
    )
    assert text.startswith(f"{tmp_path} ['', 'two words'] ")
    assert "'FIRST': 'a=b\\nc', 'SECOND': ''" in text
    assert text.endswith(" True\n")


def test_a_process_is_told_its_number_where_it_looks_for_it(server: Server) -> None:
    code = 'test "$LISTEN_PID" = $$ && echo it is mine'
    assert output_of(server, "worker/1", "sh", "-c", code, names_listen_pid=True) == "it is mine\n"
    code = "echo ${LISTEN_PID-nothing}"
    assert output_of(server, "worker/2", "sh", "-c", code) == "nothing\n"


def test_a_process_has_the_placed_descriptors_and_no_other(server: Server) -> None:
    pipes = [os.pipe() for _ in range(3)]
    server.say(wire.Hold("pipe", ""), pipes[0][0])
    read_end, write_end = os.pipe()
    # Crossed over: no target may overwrite a source.
    placed = {1: write_end, 4: pipes[0][0], 3: pipes[1][0], 7: pipes[2][0]}
    server.spawned("worker/1", "sh", "-c", "cd /proc/$$/fd && ls -l", placed=placed)
    os.close(write_end)
    lines = read_to_end(read_end).splitlines()[1:]
    found = {int(left.split()[-1]): right for left, right in (line.split(" -> ") for line in lines)}
    assert set(found) - {10} == {0, 1, 2, 3, 4, 7}, found
    assert found[3] == os.readlink(f"/proc/self/fd/{pipes[1][0]}")
    assert found[4] == os.readlink(f"/proc/self/fd/{pipes[0][0]}")
    for ends in pipes:
        os.close(ends[0])
        os.close(ends[1])


def test_a_process_begins_with_default_signals_and_none_blocked(server: Server) -> None:
    text = output_of(server, "worker/1", "cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in text.splitlines())
    masks = {name: int(lines[name], 16) & ~INTERNAL_SIGNALS for name in ("SigBlk", "SigIgn")}
    assert masks == {"SigBlk": 0, "SigIgn": 0}


@pytest.mark.parametrize(
    ("argv", "status", "problem"),
    [
        (("/no/such/program",), 127, "No such file"),
        (("no-such-program-anywhere",), 127, "No such file"),
        (("/etc/passwd",), 126, "Permission denied"),
    ],
)
def test_a_program_that_cannot_run_says_so_itself(
    server: Server, argv: tuple[str, ...], status: int, problem: str
) -> None:
    read_end, write_end = os.pipe()
    server.spawned("worker/1", *argv, placed={2: write_end})
    os.close(write_end)
    line = read_to_end(read_end)
    assert line.startswith(f"sengu: cannot run {argv[0]}: ")
    assert problem in line
    assert os.waitstatus_to_exitcode(server.hear(wire.Exited).status) == status


def test_a_document_that_makes_no_sense_is_refused(server: Server) -> None:
    fd = os.memfd_create("document")
    server.say(wire.Spawn("worker/1"), fd)
    assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EINVAL)
    os.write(fd, wire.encode_document(wire.Document((), {}, ())))
    server.say(wire.Spawn("worker/1"), fd)
    assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EINVAL)
    os.close(fd)


def test_a_process_without_a_descriptor_that_it_is_to_have_is_refused(server: Server) -> None:
    fd = os.memfd_create("document")
    os.write(fd, wire.encode_document(wire.Document(("true",), {}, (0, 1))))
    server.say(wire.Spawn("worker/1"), fd, 0)
    assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EINVAL)
    os.close(fd)


def test_a_process_without_a_document_is_refused(server: Server) -> None:
    server.say(wire.Spawn("worker/1"))
    assert server.hear(wire.Refused).key == "worker/1"


def test_to_ask_twice_gives_the_same_process(server: Server) -> None:
    first = server.spawned("worker/1", "sleep", "1000")
    assert server.spawned("worker/1", "sleep", "1000").pid == first.pid


@pytest.mark.parametrize(
    ("script", "how"),
    [("exit 0", 0), ("exit 9", 9), ("kill -KILL $$", -9), ("ulimit -c 0; kill -SEGV $$", -11)],
)
def test_how_a_process_has_ended_is_told(server: Server, script: str, how: int) -> None:
    server.spawned("worker/1", "sh", "-c", script)
    message = server.hear(wire.Exited)
    assert (message.key, os.waitstatus_to_exitcode(message.status)) == ("worker/1", how)


def test_a_process_keeps_its_number_until_it_is_to_be_reaped(server: Server) -> None:
    kin = server.spawned("worker/1", "true")
    server.hear(wire.Exited)
    assert state_of(kin.pid) == "Z"
    server.say(wire.Reap("worker/1"))
    assert server.hear(wire.Gone).key == "worker/1"
    assert state_of(kin.pid) == ""


def test_a_status_is_kept_over_the_life_of_a_server(supervisor: Supervised, server: Server) -> None:
    living = server.spawned("worker/1", "sleep", "1000")
    dead = server.spawned("worker/2", "sh", "-c", "exit 4")
    server.hear(wire.Exited)
    server.kill()
    server = supervisor.server()
    kin = server.inherit().kin
    assert (kin["worker/1"].pid, kin["worker/1"].status) == (living.pid, None)
    assert (kin["worker/2"].pid, kin["worker/2"].status) == (dead.pid, 4 << 8)
    server.say(wire.Reap("worker/2"))
    server.kill()
    assert list(supervisor.server().inherit().kin) == ["worker/1"]


def test_an_exit_between_two_servers_is_not_lost(supervisor: Supervised, server: Server) -> None:
    kin = server.spawned("worker/1", "sleep", "1000")
    os.kill(supervisor.pid, signal.SIGSTOP)
    server.kill()
    os.kill(kin.pid, signal.SIGTERM)
    assert ended(kin.pidfd)
    os.kill(supervisor.pid, signal.SIGCONT)
    server = supervisor.server()
    status = server.inherit().kin["worker/1"].status
    if status is None:  # heard of after the new server was told of it
        status = server.hear(wire.Exited).status
    assert status == signal.SIGTERM


def test_one_that_is_forgotten_while_it_lives_is_reaped_in_the_end(server: Server) -> None:
    kin = server.spawned("worker/1", "sleep", "1000")
    server.say(wire.Reap("worker/1"))
    assert server.spawned("worker/1", "sleep", "1000").pid != kin.pid
    os.kill(kin.pid, signal.SIGKILL)
    while state_of(kin.pid):
        assert not select.select([server.socket], [], [], 0.01)[0]


def test_orphans_are_reaped_at_once_behind_whatever_is_not(server: Server) -> None:
    kin = server.spawned("worker/1", "true")
    server.hear(wire.Exited)
    read_end, write_end = os.pipe()
    go, say_go = os.pipe()
    script = "cat <&3 >&2 & echo $!"
    server.spawned("worker/2", "sh", "-c", script, placed={1: write_end, 3: go})
    os.close(write_end)
    orphan = int(os.read(read_end, 100))
    assert server.hear(wire.Exited).key == "worker/2"
    server.say(wire.Reap("worker/2"))
    os.close(say_go)
    assert server.hear(wire.Gone).key == "worker/2"
    assert state_of(orphan) == ""
    assert state_of(kin.pid) == "Z"
    os.close(go)
    os.close(read_end)


def test_many_may_end_at_once(server: Server) -> None:
    pids = [server.spawned(f"worker/{number}", "sleep", "1000").pid for number in range(50)]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    keys = {server.hear(wire.Exited).key for _ in pids}
    assert keys == {f"worker/{number}" for number in range(50)}


# Births.

# Forks workers as a fork server does: twice, and tells of each before the process in between exits.
FORK_SERVER = """
import os, socket, sys, time
births = socket.socket(fileno=3)
for number in range(int(sys.argv[1])):
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            if sys.argv[2] == "lives":
                time.sleep(1000)
            os._exit(7)
        if sys.argv[2] == "dies first":
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if sys.argv[3] != "0":
            births.send(f"worker/stranger\\0{sys.argv[3]}".encode())
        births.send(f"worker/{number}\\0{pid}".encode())
        os._exit(0)
    os.waitpid(between, 0)
time.sleep(1000)
"""


def start_fork_server(supervisor: Supervised, count: int, then: str, stranger: int = 0) -> Server:
    server = supervisor.server()
    births = server.inherit().held["births"].fd
    assert births is not None
    server.spawn(
        "forkserver/1",
        *(sys.executable, "-I", "-S", "-c", FORK_SERVER, str(count), then, str(stranger)),
        placed={3: births},
    )
    assert server.hear(wire.Spawned).key == "forkserver/1"
    return server


def test_a_worker_of_a_fork_server_is_ours(supervisor: Supervised) -> None:
    server = start_fork_server(supervisor, 3, "lives")
    births = [server.hear_with(wire.Spawned) for _ in range(3)]
    assert [born.key for born, _ in births] == ["worker/0", "worker/1", "worker/2"]
    for born, (pidfd,) in births:
        os.kill(born.pid, signal.SIGTERM)
        assert ended(pidfd)
        exited = server.hear(wire.Exited)
        assert (exited.key, exited.status) == (born.key, signal.SIGTERM)


def test_a_stranger_is_not_taken_for_a_worker_whoever_says_so(supervisor: Supervised) -> None:
    """An application runs where births are told, perhaps as another user than we."""
    server = start_fork_server(supervisor, 1, "lives", stranger=os.getpid())
    assert server.hear(wire.Spawned).key == "worker/0"


@pytest.mark.parametrize("then", ["dies", "dies first"])
def test_a_worker_that_dies_at_once_is_never_taken_for_an_orphan(
    supervisor: Supervised, then: str
) -> None:
    count = 200
    server = start_fork_server(supervisor, count, then)
    born = set[str]()
    exited: dict[str, int] = {}
    while len(exited) < count:
        match server.hear_any()[0]:
            case wire.Spawned(key):
                born.add(key)
            case wire.Exited(key, status):
                assert key in born
                exited[key] = status
                if len(exited) % 2:  # some stay in the way of those behind them
                    server.say(wire.Reap(key))
            case wire.Gone():
                pass
            case message:
                pytest.fail(f"{message}")
    assert set(exited.values()) == {7 << 8}


def test_a_birth_is_known_to_the_next_server(supervisor: Supervised) -> None:
    server = start_fork_server(supervisor, 1, "lives")
    born = server.hear(wire.Spawned)
    server.kill()
    assert supervisor.server().inherit().kin["worker/0"].pid == born.pid


# Signals.


def test_a_signal_is_passed_on_until_it_is_heard(supervisor: Supervised, server: Server) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTTIN, signal.SIGWINCH):
        supervisor.signal(number)
        assert server.hear(wire.Signal).number == number
    server.say(wire.Heard(signal.SIGHUP))
    server.kill()
    server = supervisor.server()
    expected = [signal.SIGTERM, signal.SIGTTIN, signal.SIGWINCH]
    assert server.inherit().signals == expected
    for number in expected:
        server.say(wire.Heard(number))
    server.kill()
    assert supervisor.server().inherit().signals == []


def test_a_signal_that_nobody_is_there_for_waits(supervisor: Supervised) -> None:
    supervisor.server().kill()
    supervisor.signal(signal.SIGTERM)
    server = supervisor.server()
    assert signal.SIGTERM in server.inherit().signals or server.hear(wire.Signal).number == 15


def test_a_signal_that_comes_twice_is_heard_twice(supervisor: Supervised, server: Server) -> None:
    for _ in range(2):
        supervisor.signal(signal.SIGINT)
        server.hear(wire.Signal)
    server.say(wire.Heard(signal.SIGINT))
    server.kill()
    assert supervisor.server().inherit().signals == [signal.SIGINT]


# The rest.


def test_the_server_has_its_socket_and_no_other_descriptor(supervisor: Supervised) -> None:
    server = supervisor.begun()
    assert server.fds.startswith("[0, 1, 2, 3, 4"), server.fds  # 4: its strings
    assert server.fds.count(",") <= 5, server.fds  # 5: the listing itself
    server.kill()
    server = supervisor.begun()
    assert server.fds.count(",") <= 5, server.fds


def test_the_server_is_out_of_the_terminals_reach(server: Server) -> None:
    assert server.group == server.pid


def test_output_goes_where_the_server_says(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Output(), write_end)
    os.close(write_end)
    server.kill()
    second = supervisor.begun()
    assert select.select([read_end], [], [], 20)[0]
    assert b"sengu[under-test] the server" in os.read(read_end, 1000)
    link = f"/proc/{second.pid}/fd/2"
    assert os.readlink(link) == os.readlink(f"/proc/self/fd/{read_end}")
    os.close(read_end)


def test_nobody_who_reads_the_log_can_stop_the_supervisor(
    supervisor: Supervised, server: Server
) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    while select.select([], [write_end], [], 0)[1]:
        os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    server.say(wire.Output(), write_end)
    server.kill()
    supervisor.begun()
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize(
    "packet", [b"sing\0a song", b"reap", b"heard\0TERM", b"policy\x00999\x001", b"hold", b"\0"]
)
def test_what_is_not_understood_does_no_harm(
    supervisor: Supervised, server: Server, packet: bytes
) -> None:
    packets.send(server.socket, packet)
    if packet == b"\0":  # as good as a closed socket
        server.wait()
        server = supervisor.begun()
    server.spawned("worker/1", "true")


def test_a_server_that_closes_its_socket_is_replaced(
    supervisor: Supervised, server: Server
) -> None:
    server.socket.shutdown(socket.SHUT_RDWR)
    server.wait()
    supervisor.begun()


def state_of(pid: int) -> str:
    """As in /proc/PID/stat; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
