"""What a worker finds, whoever started sengu and in whatever state (docs/worker-contract.md)."""

import os
import re
import select
import signal
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.processes import INTERNAL_SIGNALS
from tests.support import PROGRAM, WAIT_SECONDS, Instance, Sengu
from tests.system.peers import Witnesses, concluded, kill, wait_gone

NOTIFY = ("--ready", "notify")
QUICK = ("--interval", "0.25")  # ample for an exec, even on a busy machine

# Leaves behind in our process what a careless parent might: run as `-c LEAK COMMAND...`.
CARELESS_PARENT = """
import os, signal, socket, sys
for _ in range(3):
    os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
os.dup2(os.open("/etc/hosts", os.O_RDONLY), 77)
listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def only_worker(instance: Instance) -> int:
    (worker,) = instance.status()["workers"]
    return int(worker["pid"])


def descriptors(pid: int) -> dict[int, str]:
    directory = f"/proc/{pid}/fd"
    return {int(name): os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ")


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {key: text for key, equals, text in (pair.partition("=") for pair in pairs) if equals}


@pytest.fixture
def abused(sengu: Sengu, free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """An instance whose parent leaked descriptors, ignored and blocked signals."""
    monkeypatch.setattr("tests.support.PROGRAM", (sys.executable, "-c", CARELESS_PARENT, *PROGRAM))
    port, path = free_port(), free_path / "app.sock"
    listeners = ("--port", f"127.0.0.1:{port}", "--path", str(path))
    return sengu.start(*QUICK, *listeners, "--workers", "2", "--", "sleep", "600").wait_ready()


def test_a_worker_has_stdio_its_listeners_and_the_lifeline_and_no_other_descriptor(
    abused: Instance,
) -> None:
    for worker in abused.status()["workers"]:
        found = descriptors(worker["pid"])
        assert sorted(found) == [0, 1, 2, 3, 4, 5]
        assert found[0] == "/dev/null"
        assert [re.sub(r"\d+", "N", found[fd]) for fd in (2, 3, 4, 5)] == [
            "pipe:[N]",
            "socket:[N]",
            "socket:[N]",
            "pipe:[N]",
        ]
        assert environment_of(worker["pid"])["SENGU_LIFELINE_FD"] == "5"


def test_a_worker_has_default_signals_whatever_ours_are(abused: Instance) -> None:
    for worker in abused.status()["workers"]:
        status = status_of(worker["pid"])
        found = {key: int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")}
        found["SigIgn"] &= ~INTERNAL_SIGNALS
        assert found == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0, "SigPnd": 0}


def test_an_instance_obeys_signals_that_its_parent_had_ignored_or_blocked(
    abused: Instance,
) -> None:
    abused.signal(signal.SIGHUP)
    assert abused.wait_event(concluded(2))["outcome"] == "succeeded"
    assert abused.stop() == 0


def test_we_keep_nothing_that_our_parent_leaked_from_workers_of_later_generations(
    abused: Instance,
) -> None:
    abused.signal(signal.SIGHUP)
    abused.wait_event(lambda event: event["type"] == "generation_retired")
    for worker in abused.status()["workers"]:
        assert sorted(descriptors(worker["pid"])) == [0, 1, 2, 3, 4, 5]


def test_nohup_does_not_keep_hup_from_us_or_from_workers(
    sengu: Sengu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.PROGRAM", ("nohup", *PROGRAM))
    signals = ("--signal-on-hup", "HUP")
    instance = sengu.start(*QUICK, *signals, "--", "sleep", "600").wait_ready()
    old = only_worker(instance)
    instance.signal(signal.SIGHUP)
    wait_gone(old)
    assert instance.wait_event(concluded(2))["outcome"] == "succeeded"


def test_with_a_log_file_stdout_and_stderr_are_pipes_and_nothing_else_is_open(
    sengu: Sengu, free_path: Path
) -> None:
    for log in (f"{free_path}/log", "| cat"):
        args = (*QUICK, "--log-file", log, "--", "sleep", "600")
        found = descriptors(only_worker(sengu.start(*args).wait_ready()))
        assert sorted(found) == [0, 1, 2, 3]
        assert found[1].startswith("pipe:")
        assert found[2].startswith("pipe:")
        assert found[1] != found[2]


@pytest.mark.parametrize(
    "command",
    [[], ["sh", "-c", 'exec "$0" "$@"'], ["sh", "-c", 'exec sh -c \'exec "$0" "$@"\' "$0" "$@"']],
)
def test_listeners_come_as_from_systemd_with_the_real_pid(
    sengu: Sengu, witnesses: Witnesses, free_path: Path, port: int, command: list[str]
) -> None:
    other, path = free_port(), free_path / "my:app.sock"
    sengu.start(
        *(*NOTIFY, "--port", f"127.0.0.1:{port}", "--port", f"u{other}", "--path", str(path)),
        *("--workers", "2", "--", *command, *witnesses.command()),
    ).wait_ready()
    for report in witnesses.wait_for(2):
        env = report["env"]
        assert env["LISTEN_PID"] == str(report["pid"])
        assert env["LISTEN_FDS"] == "3"
        assert env["LISTEN_FDNAMES"] == f"tcp-{port}:udp-{other}:unix-my-app.sock"
        assert report["sockets"]["3"]["address"] == ["127.0.0.1", port]
        assert report["sockets"]["4"]["type"] == "SOCK_DGRAM"
        assert report["sockets"]["5"]["address"] == str(path)


def test_the_names_of_listeners_are_in_the_order_of_their_descriptors(
    sengu: Sengu, witnesses: Witnesses, port: int
) -> None:
    other = free_port()
    ports = ("--port", f"127.0.0.1:{port}=4", "--port", f"127.0.0.1:{other}")
    sengu.start(*NOTIFY, *ports, "--", *witnesses.command()).wait_ready()
    report = witnesses.wait()
    assert report["env"]["LISTEN_FDNAMES"] == f"tcp-{other}:tcp-{port}"
    assert report["sockets"]["3"]["address"] == ["127.0.0.1", other]
    assert report["sockets"]["4"]["address"] == ["127.0.0.1", port]


def test_a_worker_knows_who_it_is(sengu: Sengu, witnesses: Witnesses) -> None:
    args = (*NOTIFY, "--workers", "3", "--watchdog", "20", "--", *witnesses.command())
    instance = sengu.start(*args, name="shop-7").wait_ready()
    reports = witnesses.wait_for(3)
    for report in reports:
        env = report["env"]
        assert env["SENGU_SERVICE"] == "shop-7"
        assert env["SENGU_GENERATION"] == env["SERVER_STARTER_GENERATION"] == "1"
        assert env["WATCHDOG_USEC"] == "20000000"
    assert sorted(report["env"]["SENGU_SLOT"] for report in reports) == ["0", "1", "2"]
    assert len({report["env"]["NOTIFY_SOCKET"] for report in reports}) == 3
    slots = {worker["pid"]: str(worker["slot"]) for worker in instance.status()["workers"]}
    assert slots == {report["pid"]: report["env"]["SENGU_SLOT"] for report in reports}


def test_what_was_meant_for_us_is_not_passed_on(sengu: Sengu, witnesses: Witnesses) -> None:
    ours = {
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "x:y",
        "SERVER_STARTER_GENERATION": "41",
        "SENGU_SLOT": "9",
        "SENGU_LIFELINE_FD": "99",
    }
    instance = sengu.start(*NOTIFY, "--", *witnesses.command(), env=ours).wait_ready()
    env = witnesses.wait()["env"]
    assert env["NOTIFY_SOCKET"].startswith(f"@sengu/{instance.server_pid}/")
    assert not [name for name in env if name.startswith(("LISTEN_", "WATCHDOG_"))]
    assert (env["SERVER_STARTER_GENERATION"], env["SENGU_SLOT"]) == ("1", "0")
    assert env["SENGU_LIFELINE_FD"] == "3"


def test_each_worker_leads_a_session_of_its_own(sengu: Sengu, witnesses: Witnesses) -> None:
    instance = sengu.start(*NOTIFY, "--workers", "2", "--", *witnesses.command()).wait_ready()
    for report in witnesses.wait_for(2):
        assert report["session"] == report["pid"] == os.getpgid(report["pid"])
        assert status_of(report["pid"])["PPid"] == str(instance.pid)


def test_stdin_is_the_socket_when_asked_for_as_inetd_does(sengu: Sengu, port: int) -> None:
    program = (
        "import socket; listener = socket.socket(fileno=0)\n"
        "while True:\n"
        "    client, _ = listener.accept()\n"
        "    with client: client.sendall(client.recv(9).upper())"
    )
    args = (*QUICK, "--port", f"127.0.0.1:{port}=0", "--", sys.executable, "-c", program)
    instance = sengu.start(*args).wait_ready()
    found = descriptors(only_worker(instance))
    assert found[0] == found[3]
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
        client.sendall(b"hello")
        assert client.recv(9) == b"HELLO"


# Obeys no TERM, so that the lifeline alone can end it; tells the socket at argv[1] of both.
WAIT_FOR_END = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: None)
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
sender.send(str(os.getpid()).encode())
end = os.read(int(os.environ["SENGU_LIFELINE_FD"]), 1)
sender.send(b"end of file" if end == b"" else b"bytes")
"""


def test_a_worker_sees_the_end_of_the_lifeline_when_supervisor_and_server_are_killed(
    sengu: Sengu, free_path: Path
) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as ear:
        ear.bind(f"{free_path}/ear")
        ear.settimeout(WAIT_SECONDS)
        program = (sys.executable, "-c", WAIT_FOR_END, f"{free_path}/ear")
        instance = sengu.start(*QUICK, "--workers", "2", "--", *program).wait_ready()
        pids = [int(ear.recv(99)) for _ in range(2)]
        server = instance.server_pid
        instance.signal(signal.SIGSTOP)  # it is not to start another server
        kill(server)
        instance.signal(signal.SIGKILL)
        assert [ear.recv(99) for _ in pids] == [b"end of file"] * 2
        for pid in pids:
            wait_gone(pid)


@pytest.mark.parametrize("name", ["TERM", "QUIT"])
def test_a_worker_gets_signal_on_term_from_the_kernel_when_the_main_process_is_killed(
    sengu: Sengu, witnesses: Witnesses, name: str
) -> None:
    args = (*NOTIFY, "--signal-on-term", name, "--", *witnesses.command())
    instance = sengu.start(*args).wait_ready()
    pid = witnesses.wait()["pid"]
    instance.signal(signal.SIGKILL)
    witnesses.wait(name, pid=pid)
    wait_gone(pid)


def test_ctrl_c_in_a_terminal_reaches_us_alone(sengu: Sengu, witnesses: Witnesses) -> None:
    instance = sengu.start(*NOTIFY, "--", *witnesses.command()).wait_ready()
    pid = witnesses.wait()["pid"]
    os.killpg(instance.pid, signal.SIGINT)  # the harness gave it a process group
    assert instance.wait() == 0
    assert [report["event"] for report in witnesses.unread()] == ["TERM"]
    wait_gone(pid)


def test_secrets_of_the_environment_are_told_to_workers_and_nobody_else(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    secrets = {"DATABASE_PASSWORD": "hunter-22", "TOKEN": "s3cr3t-t0k3n"}
    (free_path / "API_KEY").write_text("k3y-of-envdir")
    args = (*NOTIFY, "--envdir", str(free_path), "--", *witnesses.command("talk"))
    instance = sengu.start(*args, env=secrets).wait_ready()
    instance.signal(signal.SIGHUP)
    instance.wait_event(concluded(2))
    env = witnesses.wait()["env"]
    assert (secrets | {"API_KEY": "k3y-of-envdir"}).items() <= env.items()
    told = "\n".join(
        (
            str(instance.status()),
            str(instance.output),
            instance.cli("events", "--json").stdout,
            title_of(instance.pid),
            title_of(instance.server_pid),
            str(instance.notifications),
        )
    )
    for secret in ("hunter-22", "s3cr3t-t0k3n", "k3y-of-envdir"):
        assert secret not in told


def test_titles_say_who_supervises_and_what_the_server_does(sengu: Sengu) -> None:
    instance = sengu.start(*QUICK, "--workers", "2", "--", "sleep", "600", name="shop")
    instance.wait_ready()
    instance.wait_notified("STATUS=generation 1, 2 of 2 ready")
    assert title_of(instance.pid) == "sengu: shop: supervisor"
    assert title_of(instance.server_pid) == "sengu: shop: generation 1, 2 of 2 ready"


def test_what_a_worker_leaves_in_its_group_goes_with_an_immediate_stop(
    sengu: Sengu, free_path: Path
) -> None:
    script = f"sleep 600 & echo $! > {free_path}/child; trap '' TERM; echo begun; wait; wait"
    instance = sengu.start(*QUICK, "--", "sh", "-c", script).wait_ready()
    instance.wait_for_line("^begun$")
    instance.signal(signal.SIGQUIT)
    assert instance.wait() == 0
    wait_gone(int((free_path / "child").read_text()))


def test_a_program_that_vanishes_is_told_by_name(sengu: Sengu, free_path: Path) -> None:
    program = free_path / "program"
    program.write_text("#!/bin/sh\necho begun; exec sleep 600\n")
    program.chmod(0o755)
    instance = sengu.start(*QUICK, "--attempts", "1", "--", str(program)).wait_ready()
    instance.wait_for_line("^begun$")
    program.unlink()
    reload = instance.cli("reload")
    assert reload.returncode == 1
    assert "exit status 127" in reload.stderr
    assert f"  | sengu: cannot run {program}: No such file or directory" in reload.stderr


def test_orphans_are_reaped_when_we_are_their_init(sengu: Sengu, free_path: Path) -> None:
    """A worker's child that outlives its parent and dies later is not left as a zombie."""
    orphan = "import os; os.fork() or (os.setsid(), os.execvp('sleep', ['sleep', '600']))"
    script = f'{sys.executable} -c "{orphan}"; echo orphaned; exec sleep 600'
    instance = sengu.start(*QUICK, "--", "sh", "-c", script).wait_ready()
    instance.wait_for_line("^orphaned$")
    ours = {instance.server_pid, only_worker(instance)}
    pidfds = {}
    for name in os.listdir("/proc"):
        with suppress(ValueError, FileNotFoundError, ProcessLookupError):
            if status_of(int(name))["PPid"] == str(instance.pid) and int(name) not in ours:
                pidfds[int(name)] = os.pidfd_open(int(name))
    (pid,) = pidfds
    kill(pid)
    select.select([pidfds[pid]], [], [], WAIT_SECONDS)
    os.close(pidfds[pid])
    while Path(f"/proc/{pid}").exists():
        os.sched_yield()


def test_the_parent_death_signal_is_set(sengu: Sengu) -> None:
    """PR_GET_PDEATHSIG, asked by the worker of itself."""
    ask = (
        "import ctypes, sys, time; n = ctypes.c_int();"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print('death', n.value, flush=True);"
        "time.sleep(600)"
    )
    args = (*QUICK, "--signal-on-term", "INT", "--", sys.executable, "-c", ask)
    instance = sengu.start(*args)
    assert instance.wait_for_line(r"^death (\d+)$")[1] == str(int(signal.SIGINT))
