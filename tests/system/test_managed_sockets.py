"""Sockets that workers ask for at run time: one for all, across deploys and deaths."""

import errno
import json
import os
import re
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sengu.work.sockets import SocketManager
from tests.support import Instance, Sengu, needs_root
from tests.system.load import Load, ask_http, ask_pid
from tests.system.peers import deploy, kill
from tests.system.puppets import descriptors, of_type, wait_until

PROGRAM = Path(__file__).with_name("programs") / "asker.py"
EXAMPLES = Path(__file__).parents[2] / "examples" / "managed_sockets"
NOTIFY = ("--ready", "notify")
NOBODY = 65534


class Asker:
    """Instances whose workers ask for what `lines` say."""

    def __init__(self, sengu: Sengu, directory: Path) -> None:
        self._sengu = sengu
        self.script = directory / "script"

    def write(self, *lines: str) -> None:
        self.script.write_text("".join(f"{line}\n" for line in lines))

    def start(self, *lines: str, options: tuple[str, ...] = ()) -> Instance:
        self.write(*lines)
        command = (sys.executable, str(PROGRAM), str(self.script))
        return self._sengu.start(*NOTIFY, *options, "--", *command)


@pytest.fixture
def asker(sengu: Sengu, free_path: Path) -> Asker:
    return Asker(sengu, free_path)


def told(instance: Instance, line: str, after: int = 0) -> str:
    """What came of that line."""
    return instance.wait_for_line(f"asker {re.escape(line)}: (.*)", after=after)[1]


def managed(instance: Instance) -> dict[str, list[int]]:
    return {one["address"]: one["generations"] for one in instance.status()["managed"]}


def pids(instance: Instance) -> list[int]:
    return [int(worker["pid"]) for worker in instance.status()["workers"]]


def start_example(sengu: Sengu, port: int, workers: int = 2) -> Instance:
    program = str(EXAMPLES / "asking.py")
    options = ("--workers", str(workers), "--ready", "notify")
    return sengu.start(*options, "--", sys.executable, program, str(port)).wait_ready()


def sockets_of(pid: int) -> set[str]:
    return {target for target in descriptors(pid) if target.startswith("socket:")}


def test_workers_that_ask_for_the_same_port_share_one_socket(sengu: Sengu, port: int) -> None:
    instance = start_example(sengu, port)
    assert managed(instance) == {f"127.0.0.1:{port}": [1]}
    first, second = pids(instance)
    assert len(sockets_of(first) & sockets_of(second)) == 1
    with Load(("127.0.0.1", port), ask_pid) as load:
        load.wait_for_any(20)
    assert not load.failures
    assert instance.cli("status").stdout.count(f"managed    127.0.0.1:{port}") == 1


def test_a_deploy_keeps_the_socket_and_loses_no_connection(sengu: Sengu, port: int) -> None:
    instance = start_example(sengu, port)
    before = set(pids(instance))
    with Load(("127.0.0.1", port), ask_pid, clients=8) as load:
        for pid in before:
            load.wait_for(str(pid))
        for _ in range(3):
            deploy(instance)
            load.wait_for_any(50)
    assert not load.failures
    assert before < set(map(int, load.answers))
    for generation in (1, 2, 3):
        instance.wait_event(of_type("generation_retired", generation=generation))
    assert managed(instance) == {f"127.0.0.1:{port}": [4]}


def test_a_server_that_is_killed_loses_no_socket_and_the_next_one_gives_it_on(
    sengu: Sengu, port: int
) -> None:
    instance = start_example(sengu, port)
    (victim, other), server = pids(instance), instance.server_pid
    (inode,) = sockets_of(victim) & sockets_of(other)
    with Load(("127.0.0.1", port), ask_pid, clients=4) as load:
        load.wait_for_any(20)
        kill(server)
        instance.wait_event(lambda event: event["type"] == "server_adopted")
        assert managed(instance) == {f"127.0.0.1:{port}": [1]}
        deploy(instance)
        load.wait_for_any(20)
    assert not load.failures
    new = [worker for worker in instance.status()["workers"] if worker["generation"] == 2]
    assert [inode in sockets_of(worker["pid"]) for worker in new] == [True, True]


def test_a_worker_that_asks_while_no_server_is_there_is_answered_by_the_next(
    asker: Asker, port: int
) -> None:
    instance = asker.start("tcp 127.0.0.1 0").wait_ready()
    (worker,), server = pids(instance), instance.server_pid
    name = variables_of(worker)["SENGU_SOCKETS"]
    os.kill(server, signal.SIGSTOP)
    foreign = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(foreign):
        foreign.connect("\0" + name.removeprefix("@"))
        os.kill(server, signal.SIGKILL)
        foreign.settimeout(20)
        assert json.loads(foreign.recv(65536))["answer"] == "refused"
    assert instance.server_pid != server


def variables_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {key: text for key, equals, text in (pair.partition("=") for pair in pairs) if equals}


def test_a_socket_closes_when_the_last_generation_that_asked_is_gone(
    asker: Asker, port: int
) -> None:
    line = f"tcp 127.0.0.1 {port}"
    instance = asker.start(line).wait_ready()
    assert told(instance, line).startswith("got")
    asker.write()
    deploy(instance)
    instance.wait_event(lambda event: event["type"] == "generation_retired")
    instance.wait_for_line(f"closed 127.0.0.1:{port}: the last generation")
    assert managed(instance) == {}
    wait_until(lambda: is_refused(port), "the supervisor closes what it holds")


def is_refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_udp_and_unix_sockets_and_port_0_are_given_once_too(
    asker: Asker, port: int, free_path: Path
) -> None:
    path = free_path / "app.sock"
    lines = (f"udp 127.0.0.1 {port}", f"unix {path}", f"unix @sengu-test-{port}", "tcp ::1 0")
    instance = asker.start(*lines, options=("--path-mode", "600")).wait_ready()
    first = [told(instance, line) for line in lines]
    assert all(one.startswith("got") for one in first), first
    assert path.stat().st_mode & 0o777 == 0o600
    seen = len(instance.lines)
    deploy(instance)
    assert [told(instance, line, seen) for line in lines] == first
    assert len(managed(instance)) == len(lines)
    instance.stop()
    assert not path.exists()


def test_a_removed_socket_file_is_bound_anew_for_who_asks_next(
    asker: Asker, free_path: Path
) -> None:
    path = free_path / "app.sock"
    instance = asker.start(f"unix {path}").wait_ready()
    first = told(instance, f"unix {path}")
    path.unlink()
    seen = len(instance.lines)
    deploy(instance)
    assert told(instance, f"unix {path}", seen) not in {first, ""}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_what_cannot_be_bound_is_told_with_the_next_step(asker: Asker, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        instance = asker.start(f"tcp 127.0.0.1 {port}", "unix /no/such/place")
        told_of = told(instance, f"tcp 127.0.0.1 {port}")
        assert told_of.startswith(f"failed {errno.EADDRINUSE} cannot bind 127.0.0.1:{port}")
        assert "no such directory; create it" in told(instance, "unix /no/such/place")
        assert managed(instance) == {}


def test_a_process_that_is_no_workers_is_refused(asker: Asker, port: int) -> None:
    instance = asker.start("tcp 127.0.0.1 0").wait_ready()
    (worker,) = pids(instance)
    stranger = SocketManager(variables_of(worker)["SENGU_SOCKETS"])
    with pytest.raises(PermissionError, match="no worker's"):
        stranger.listen_tcp("127.0.0.1", port)
    assert f"127.0.0.1:{port}" not in managed(instance)


def test_a_worker_of_another_user_gets_what_that_user_may_bind_and_no_more(
    asker: Asker, free_path: Path, port: int
) -> None:
    needs_root()
    theirs, ours = free_path / "theirs", free_path / "ours"
    free_path.chmod(0o755)
    for directory in (theirs, ours):
        directory.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    lines = ("tcp 127.0.0.1 81", f"unix {ours}/app.sock", f"unix {theirs}/app.sock")
    instance = asker.start(f"user {NOBODY}", *lines, f"tcp 127.0.0.1 {port}").wait_ready()
    privileged, elsewhere, at_home = (told(instance, line) for line in lines)
    assert privileged.startswith(f"failed {errno.EACCES}")
    assert "--allow-listen 127.0.0.1:81" in privileged
    assert elsewhere.startswith(f"failed {errno.EACCES}")
    assert at_home.startswith("got")
    assert told(instance, f"tcp 127.0.0.1 {port}").startswith("got")
    assert (theirs / "app.sock").stat().st_uid == NOBODY
    instance.stop()
    assert not list(theirs.iterdir())


def test_a_worker_of_another_user_gets_what_was_allowed_at_the_start(
    asker: Asker, free_path: Path
) -> None:
    needs_root()
    path = free_path / "app.sock"
    allowed = ("--allow-listen", "127.0.0.1:82", "--allow-listen", str(path))
    lines = ("tcp 127.0.0.1 82", f"unix {path}", "tcp 127.0.0.1 83")
    instance = asker.start(f"user {NOBODY}", *lines, options=allowed).wait_ready()
    first, second, third = (told(instance, line) for line in lines)
    assert first.startswith("got")
    assert second.startswith("got")
    assert third.startswith("failed")
    assert path.stat().st_uid == 0


def test_a_program_needs_nothing_of_sengu_to_ask(sengu: Sengu, port: int) -> None:
    program = (sys.executable, "-I", "-S", str(EXAMPLES / "by_hand.py"), str(port))
    instance = sengu.start("--ready", "delay:0.2", "--", *program)
    instance.wait_for_line(f"opened 127.0.0.1:{port}, which generation 1 has asked for")
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(100).decode().strip() in map(str, pids(instance))


def test_a_child_in_a_session_of_its_own_asks_for_its_worker(sengu: Sengu, port: int) -> None:
    program = (sys.executable, "-I", "-S", str(EXAMPLES / "by_hand.py"), str(port))
    shell = f"setsid {' '.join(program)} & wait"
    instance = sengu.start("--ready", "delay:0.2", "--", "sh", "-c", shell)
    instance.wait_for_line(f"opened 127.0.0.1:{port}, which generation 1 has asked for")


SITE = """
import os
from sengu.work.sockets import SocketManager

early = SocketManager().listen_tcp("127.0.0.1", {port})  # in the fork server

def app(environ, start_response):
    late = SocketManager().listen_tcp("127.0.0.1", {port})
    same = os.path.sameopenfile(early.fileno(), late.fileno())
    late.close()
    start_response("200 OK", [])
    return [f"{{same}}".encode()]
"""


def test_an_application_asks_in_its_fork_server_and_in_its_workers(
    sengu: Sengu, port: int, free_path: Path
) -> None:
    (free_path / "asking.py").write_text(SITE.format(port=port))
    listen = f"unix:{free_path}/http.sock"
    instance = sengu.serve("--listen", listen, "--dir", str(free_path), "asking:app").wait_ready()
    assert ask_http(f"{free_path}/http.sock") == "True"
    deploy(instance)
    instance.wait_for_line("generation 1 is gone")
    assert ask_http(f"{free_path}/http.sock") == "True"
    assert managed(instance) == {f"127.0.0.1:{port}": [2]}
