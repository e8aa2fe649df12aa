"""Between managers: sockets that were passed to us, and what we tell who started us.

systemd is played by few lines: it passes descriptors from 3 on and listens on NOTIFY_SOCKET.
"""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.support import PROGRAM, WAIT_SECONDS, Instance, Sengu
from tests.system.conftest import StartPeer
from tests.system.peers import Witnesses, concluded, deploy, wait_gone

NOTIFY = ("--ready", "notify")

# As systemd before exec: `-c PASS NAMES ADDRESS... -- COMMAND...`, an address a path or a port.
PASS = """
import os, socket, sys
names, *rest = sys.argv[1:]
addresses, command = rest[:rest.index("--")], rest[rest.index("--") + 1:]
made = []
for address in addresses:
    if address.startswith("/"):
        one = socket.socket(socket.AF_UNIX)
        one.bind(address)
    else:
        kind = socket.SOCK_DGRAM if address.startswith("u") else socket.SOCK_STREAM
        one = socket.socket(socket.AF_INET, kind)
        one.bind(("127.0.0.1", int(address.lstrip("u"))))
    if one.type == socket.SOCK_STREAM:
        one.listen(7)
    made.append(os.dup2(one.fileno(), 50 + len(made), inheritable=False))
for index, fd in enumerate(made):
    os.dup2(fd, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), LISTEN_FDNAMES=names)
os.execvp(command[0], command)
"""


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has instances started with sockets, as by systemd with socket units."""

    def passing(names: str, *addresses: str | int) -> None:
        words = (names, *map(str, addresses), "--", *PROGRAM)
        monkeypatch.setattr("tests.support.PROGRAM", (sys.executable, "-c", PASS, *words))

    return passing


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)


def test_sockets_of_systemd_are_handed_on_under_their_names(
    sengu: Sengu, witnesses: Witnesses, passing: Callable[..., None], free_path: Path, port: int
) -> None:
    path = free_path / "passed.sock"
    passing("http:admin:dns", port, path, f"u{port}")
    instance = sengu.start(*NOTIFY, "--", *witnesses.command()).wait_ready()
    report = witnesses.wait()
    env = report["env"]
    assert (env["LISTEN_FDS"], env["LISTEN_FDNAMES"]) == ("3", "http:admin:dns")
    assert env["LISTEN_PID"] == str(report["pid"])
    assert env["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3;{path}=4;127.0.0.1:{port}=5"
    assert report["sockets"]["3"]["address"] == ["127.0.0.1", port]
    assert report["sockets"]["5"]["type"] == "SOCK_DGRAM"
    told = [(one["name"], one["address"], one["fd"]) for one in instance.status()["listeners"]]
    assert told == [
        ("http", f"127.0.0.1:{port}", 3),
        ("admin", str(path), 4),
        ("dns", f"127.0.0.1:{port}/udp", 5),
    ]
    deploy(instance)
    assert witnesses.wait()["env"]["LISTEN_FDNAMES"] == "http:admin:dns"
    assert instance.stop() == 0
    assert path.exists()  # it is systemd's


def test_a_port_or_path_that_was_passed_is_taken_and_not_bound(
    sengu: Sengu, witnesses: Witnesses, passing: Callable[..., None], free_path: Path, port: int
) -> None:
    path, other = free_path / "passed.sock", free_port()
    passing("http:admin", port, path)
    options = ("--port", f"127.0.0.1:{other}", "--port", f"127.0.0.1:{port}=9")
    instance = sengu.start(*NOTIFY, *options, "--path", str(path), "--", *witnesses.command())
    report = witnesses.wait()
    text = f"127.0.0.1:{other}=3;127.0.0.1:{port}=9;{path}=5"
    assert report["env"]["SERVER_STARTER_PORT"] == text
    assert report["env"]["LISTEN_FDNAMES"] == f"tcp-{other}:http:admin"
    assert report["fds"]["9"] == report["fds"]["4"]
    assert instance.wait_ready().stop() == 0
    assert path.exists()


def test_connections_wait_in_a_passed_socket_while_we_are_restarted(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    """The manager keeps its copy; here the test is the manager, and passes descriptor 3."""
    program = (
        "import os, socket; listener = socket.socket(fileno=3)\n"
        "while True:\n client, _ = listener.accept(); client.sendall(b'%d' % os.getppid())"
    )
    keep = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fd = listener.fileno()
        for number in (1, 2):
            waiting = connect(port)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", keep, str(fd), *PROGRAM, "start"),
                    *("--control", f"{free_path}/control{number}", "--interval", "0.1", "--"),
                    *(sys.executable, "-c", program),
                ],
                pass_fds=[fd],
                stderr=subprocess.DEVNULL,
            )
            assert waiting.recv(99) == b"%d" % process.pid
            waiting.close()
            process.terminate()
            assert process.wait(WAIT_SECONDS) == 0


def test_sockets_meant_for_another_process_are_left_alone(
    sengu: Sengu, witnesses: Witnesses, port: int
) -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "3"}
    args = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--", *witnesses.command())
    sengu.start(*args, env=env).wait_ready()
    assert witnesses.wait()["env"]["LISTEN_FDS"] == "1"


def nested(directory: Path, *args: str) -> list[str]:
    """A `sengu start` as somebody else's command."""
    return [*PROGRAM, "start", "--control", str(directory / "inner"), *args]


def test_under_a_real_start_server_we_take_its_sockets_over(
    start_server: StartPeer, witnesses: Witnesses, free_path: Path, port: int
) -> None:
    path = free_path / "app.sock"
    inner = nested(free_path, *NOTIFY, "--workers", "2", "--", *witnesses.command())
    listeners = ("--port", f"127.0.0.1:{port}", "--path", str(path))
    peer = start_server("--interval", "0", *listeners, "--", *inner)
    reports = witnesses.wait_for(2)
    for report in reports:
        assert report["env"]["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3;{path}=4"
        assert report["env"]["LISTEN_FDS"] == "2"
        assert report["sockets"]["3"]["address"] == ["127.0.0.1", port]
        assert report["sockets"]["4"]["address"] == str(path)
        assert sorted(report["fds"]) == ["0", "1", "2", "3", "4", "5"]
    assert peer.stop() == 0
    for report in reports:
        wait_gone(report["pid"])


def test_a_generation_of_start_server_may_be_a_whole_instance_of_ours(
    start_server: StartPeer, witnesses: Witnesses, free_path: Path, port: int
) -> None:
    """HUP to the outer one brings a second instance beside the first, on the same socket."""
    script = f'exec "$@" --control {free_path}/$SERVER_STARTER_GENERATION -- {{}}'
    script = script.format(" ".join(witnesses.command()))
    inner = ["sh", "-c", script, "sh", *PROGRAM, "start", *NOTIFY]
    peer = start_server("--interval", "1", "--port", f"127.0.0.1:{port}", "--", *inner)
    first = witnesses.wait()
    peer.signal(signal.SIGHUP)
    second = witnesses.wait()
    witnesses.wait("TERM", pid=first["pid"])
    sockets = [report["fds"]["3"] for report in (first, second)]
    assert sockets[0] == sockets[1]
    assert [report["env"]["SERVER_STARTER_GENERATION"] for report in (first, second)] == ["1", "1"]
    assert peer.stop() == 0
    wait_gone(second["pid"])


def test_an_instance_inside_an_instance_takes_its_sockets_and_tells_it_when_it_is_ready(
    sengu: Sengu, witnesses: Witnesses, free_path: Path, port: int
) -> None:
    inner = nested(free_path, *NOTIFY, "--name", "inner", "--", *witnesses.command())
    args = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--", *inner)
    instance = sengu.start(*args, name="outer").wait_ready()
    report = witnesses.wait()
    assert report["env"]["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3"
    assert report["env"]["LISTEN_FDNAMES"] == f"tcp-{port}"
    assert report["env"]["LISTEN_PID"] == str(report["pid"])
    assert report["env"]["SENGU_SERVICE"] == "inner"
    assert sorted(report["fds"]) == ["0", "1", "2", "3", "4"]
    (worker,) = instance.status()["workers"]
    assert worker["state"] == "ready"
    assert instance.stop() == 0
    witnesses.wait("TERM")
    wait_gone(report["pid"])


def test_the_death_of_the_outer_instance_ends_the_inner_one(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    inner = nested(free_path, *NOTIFY, "--", *witnesses.command())
    instance = sengu.start(*NOTIFY, "--", *inner).wait_ready()
    pid = witnesses.wait()["pid"]
    (worker,) = instance.status()["workers"]
    instance.signal(signal.SIGKILL)
    witnesses.wait("TERM", pid=pid)
    wait_gone(pid)
    wait_gone(worker["pid"])  # and with it what it has in the directory


class Manager:
    """A NOTIFY_SOCKET that keeps each message by itself, with the time of its arrival."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(re.sub("^@", "\0", address))
        self._socket.settimeout(WAIT_SECONDS)
        self.messages: list[tuple[float, list[str]]] = []

    def wait(self, line: str) -> tuple[float, list[str]]:
        """The next message with that line."""
        while True:
            lines = self._socket.recv(65536).decode().split("\n")
            self.messages.append((time.monotonic(), lines))
            if line in lines:
                return self.messages[-1]

    def without_status(self) -> list[str]:
        said = [line for _, lines in self.messages for line in lines]
        return [line for line in said if not line.startswith(("STATUS=", "MONOTONIC_USEC="))]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, free_path: Path) -> Iterator[Manager]:
    address = f"{free_path}/manager" if request.param == "file" else f"@{free_path}/manager"
    with closing(Manager(address)) as manager:
        yield manager


def start_under(
    sengu: Sengu, manager: Manager, *args: str, env: dict[str, str] | None = None
) -> Instance:
    return sengu.start(*args, env={"NOTIFY_SOCKET": manager.address, **(env or {})})


def test_a_manager_hears_of_each_change(
    sengu: Sengu, witnesses: Witnesses, manager: Manager
) -> None:
    args = (*NOTIFY, "--workers", "2", "--", *witnesses.command())
    instance = start_under(sengu, manager, *args)
    manager.wait("READY=1")
    manager.wait("STATUS=generation 1, 2 of 2 ready")
    before = time.monotonic()
    instance.signal(signal.SIGHUP)
    heard, lines = manager.wait("RELOADING=1")
    (usec,) = [line for line in lines if line.startswith("MONOTONIC_USEC=")]
    assert before <= int(usec.partition("=")[2]) / 1e6 <= heard
    manager.wait("READY=1")
    manager.wait("STATUS=generation 2, 2 of 2 ready")
    instance.signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert instance.wait() == 0
    assert manager.without_status() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_a_manager_hears_ready_after_a_failed_deploy_too(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    script = f'test ! -e {free_path}/broken || exit 3; exec "$@"'
    with closing(Manager(f"{free_path}/manager")) as manager:
        command = ("sh", "-c", script, "sh", *witnesses.command())
        instance = start_under(sengu, manager, *NOTIFY, "--attempts", "1", "--", *command)
        manager.wait("READY=1")
        (free_path / "broken").touch()
        instance.signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.wait("READY=1")
        assert instance.wait_event(concluded(2))["outcome"] == "aborted"


def test_a_manager_hears_of_a_deploy_that_fails_at_once(sengu: Sengu, free_path: Path) -> None:
    env_dir = free_path / "env"
    env_dir.mkdir()
    with closing(Manager(f"{free_path}/manager")) as manager:
        args = ("--interval", "0.1", "--envdir", str(env_dir), "--", "sleep", "600")
        instance = start_under(sengu, manager, *args)
        manager.wait("READY=1")
        env_dir.rmdir()
        instance.signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.wait("READY=1")


def test_a_manager_that_asks_during_a_deploy_hears_of_its_own(
    sengu: Sengu, free_path: Path
) -> None:
    with closing(Manager(f"{free_path}/manager")) as manager:
        instance = start_under(sengu, manager, "--interval", "2", "--", "sleep", "600")
        manager.wait("READY=1")
        instance.control("POST", "/v1/reload")
        manager.wait("RELOADING=1")
        instance.signal(signal.SIGHUP)
        manager.wait("RELOADING=1")


def test_a_manager_hears_nothing_of_ready_when_the_first_start_fails(
    sengu: Sengu, free_path: Path
) -> None:
    with closing(Manager(f"{free_path}/manager")) as manager:
        args = ("--interval", "10", "--attempts", "1", "--", "sh", "-c", "exit 3")
        instance = start_under(sengu, manager, *args)
        assert instance.wait() == 1
        manager.wait("STOPPING=1")
        assert "READY=1" not in manager.without_status()


def test_the_watchdog_is_fed_at_half_its_interval(sengu: Sengu, free_path: Path) -> None:
    with closing(Manager(f"{free_path}/manager")) as manager:
        env = {"WATCHDOG_USEC": "6000000"}
        began = time.monotonic()
        start_under(sengu, manager, "--interval", "0.1", "--", "sleep", "600", env=env)
        beats = [manager.wait("WATCHDOG=1")[0] for _ in range(3)]
        assert beats[2] - began >= 2 * 3.0  # the first may have been read late
        gaps = [later - earlier for earlier, later in pairwise(beats)]
        assert all(gap < 6.0 for gap in gaps), gaps


def test_a_watchdog_of_another_process_is_not_fed(sengu: Sengu, free_path: Path) -> None:
    with closing(Manager(f"{free_path}/manager")) as manager:
        env = {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
        instance = start_under(sengu, manager, "--interval", "0.1", "--", "sleep", "9", env=env)
        manager.wait("READY=1")
        assert instance.stop() == 0
        manager.wait("STOPPING=1")
        assert "WATCHDOG=1" not in manager.without_status()


def test_a_manager_that_is_gone_does_not_disturb_us(sengu: Sengu, witnesses: Witnesses) -> None:
    env = {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "20000"}
    instance = sengu.start(*NOTIFY, "--", *witnesses.command(), env=env)
    witnesses.wait()
    instance.wait_for_line("deploy of generation 1 succeeded")
    deploy(instance)
    assert instance.stop() == 0


def test_sd_notify_through_us_does_not_reach_our_manager(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    """A worker's READY=1 is for us; what our manager hears is what we say."""
    instance = sengu.start("--interval", "0.3", "--", *witnesses.command()).wait_ready()
    env = witnesses.wait()["env"]
    assert env["NOTIFY_SOCKET"].startswith(f"@sengu/{instance.server_pid}/")
    ready = instance.wait_event(lambda event: event["type"] == "worker_ready")
    assert "alive after 0.3 s" in ready["reason"]
