"""When something runs out, is deleted or talks nonsense: the service serves, and recovers."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import descendants
from tests.support import WAIT_SECONDS, Instance, Sengu, needs_root, requires
from tests.system.puppets import (
    Clients,
    Script,
    ask,
    build,
    descriptors,
    in_namespace,
    kill,
    last_event,
    memory_kib,
    of_type,
    pids,
    wait_until,
    workers,
)

STRANGER = 65534
FLOOD_BYTES = 50_000_000
FLOOD_LINE_BYTES = 100


def start(
    sengu: Sengu, port: int, script: Script, *options: str, prefix: tuple[str, ...] = ()
) -> Instance:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--interval", "0.1", "--ready", "notify"),
        *(*options, *script.command),
        prefix=prefix,
    )
    return instance.wait_ready()


def fill(path: Path) -> None:
    """Write as much as there is room for."""
    with open(path, "wb", buffering=0) as stream, suppress(OSError):  # ENOSPC
        while stream.write(bytes(512)):
            pass


class SmallDisk:
    """A file system of 32 KiB that only the instance has mounted."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        self._pid = 0

    @property
    def prefix(self) -> tuple[str, ...]:
        mount = f'mount -t tmpfs -o size=32k none {self.path} && exec "$@"'
        return *in_namespace("--mount"), "sh", "-c", mount, "sh"

    def seen_by(self, instance: Instance) -> Path:
        """The directory as the instance has it."""
        return Path(f"/proc/{instance.pid}/root{self.path}")

    @contextmanager
    def full(self, instance: Instance) -> Iterator[None]:
        filler = self.seen_by(instance) / "filler"
        fill(filler)
        yield
        filler.unlink()


def test_a_full_disk_under_the_status_file_stops_nothing_and_the_file_comes_back(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    disk = SmallDisk(free_path)
    status_file = disk.path / "status"
    instance = start(sengu, port, script, "--status-file", str(status_file), prefix=disk.prefix)
    seen = disk.seen_by(instance) / "status"
    before = seen.read_text()
    assert before == f"1:{workers(instance)[0]['pid']}\n"
    with Clients(port) as clients:
        with disk.full(instance):
            assert instance.cli("reload", "--drained").returncode == 0
            for _ in range(20):
                instance.status()
            assert {answer.generation for answer in clients.wait_for_answers()} == {2}
            assert seen.read_text() == before
            assert os.listdir(disk.seen_by(instance)) in (
                ["status", "filler"],
                ["filler", "status"],
            )
        wait_until(lambda: instance.status() and seen.read_text() != before)
        assert seen.read_text() == f"2:{workers(instance)[0]['pid']}\n"
    instance.wait_for_line("cannot write the status file")
    warnings = [line for line in instance.lines if "cannot write the status file" in line]
    assert 1 <= len(warnings) <= 5, "once for each content, not for each time that it is tried"
    assert "No space left on device" in warnings[0]


def test_a_full_disk_under_the_log_stops_nothing_and_lost_lines_are_counted(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    disk = SmallDisk(free_path)
    script.write("say begin")
    instance = start(sengu, port, script, "--log-file", str(disk.path / "log"), prefix=disk.prefix)
    log = disk.seen_by(instance) / "log"
    with Clients(port) as clients:
        script.write("flood 100000")
        with disk.full(instance):
            assert instance.cli("reload", "--drained").returncode == 0
        # The little room in the file's last page takes in some lines, and a piece of one.
        whole = len(log.read_text().splitlines())
        script.write("say end")
        assert instance.cli("reload", "--drained").returncode == 0
        clients.wait_for_answers()
    wait_until(lambda: "\nend\n" in log.read_text())
    lines = log.read_text().splitlines()
    assert "begin" in lines
    ours = [line for line in lines if " sengu[" in line]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} sengu\[", line) for line in ours), "none is glued"
    lost = [int(m[1]) for line in lines if (m := re.match(r"sengu: (\d+) lines of output", line))]
    assert lost
    assert sum(lost) + whole > 1000


@pytest.mark.parametrize("who", ["supervisor", "server"])
def test_without_descriptors_the_service_serves_on_and_recovers(
    sengu: Sengu, port: int, script: Script, free_path: Path, who: str
) -> None:
    path = free_path / "socket"
    instance = start(sengu, port, script, "--workers", "2", "--path", str(path))
    server = instance.server_pid
    pid = server if who == "server" else instance.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    survivor, victim = (w["pid"] for w in workers(instance))
    before = count_descriptors(instance)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    kill(victim)
    instance.wait_for_line("could not be started: cannot start a process: Too many open files")
    path.unlink()  # which a deploy would heal, if it could
    instance.signal(signal.SIGHUP)
    instance.wait_for_line("deploy of generation 2 aborted: .*Too many open files")
    assert ask(port).pid == survivor
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert instance.server_pid == server
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready", "ready"])
    assert instance.cli("reload", "--drained").returncode == 0
    assert path.is_socket()
    wait_until(lambda: count_descriptors(instance) <= before)


def count_descriptors(instance: Instance) -> int:
    """Those of supervisor and server. One may be that of the question who the server is."""
    return sum(len(descriptors(pid)) for pid in (instance.pid, instance.server_pid))


def limit_processes(instance: Instance, count: str) -> None:
    """As the instance's own user: root is not that everywhere."""
    owner = os.stat(f"/proc/{instance.pid}").st_uid
    limit = [requires("prlimit"), "--pid", str(instance.pid), f"--nproc={count}:"]
    user = owner if os.geteuid() == 0 else None
    subprocess.run(limit, user=user, group=user, check=True)


def another_user() -> tuple[str, ...]:
    """A prefix that runs the rest as another user, who may do with files what we may.

    The number of processes is limited for each user, and for root not at all.
    """
    if os.geteuid() != 0:
        return ()
    uid = str(100_000 + os.getpid())  # nobody else's processes count
    return (
        *(requires("setpriv"), "--reuid", uid, "--regid", uid, "--clear-groups"),
        *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
    )


def test_without_processes_the_service_serves_on_and_recovers(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "2", prefix=another_user())
    enough = resource.getrlimit(resource.RLIMIT_NPROC)[0]  # ours, which it has inherited
    survivor, victim = (w["pid"] for w in workers(instance))
    limit_processes(instance, "1")
    kill(victim)
    instance.wait_for_line("cannot start a process: Resource temporarily unavailable")
    wait_until(lambda: workers(instance)[1]["state"] == "backoff")
    assert "temporarily unavailable" in workers(instance)[1]["last_failure"]
    reload = instance.cli("reload")
    assert reload.returncode == 1
    assert "temporarily unavailable" in reload.stderr
    assert ask(port).pid == survivor
    limit_processes(instance, "unlimited" if enough < 0 else str(enough))
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready", "ready"])
    assert survivor in pids(instance)
    assert instance.cli("reload").returncode == 0


def test_a_reader_of_our_stderr_that_does_not_read_blocks_nobody(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    """More than pipe and queue can hold: what is lost is counted, what is not comes whole."""
    pipe = free_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # reading begins at the end
    flood_lines = 50_000
    script.write(f"flood {flood_lines * FLOOD_LINE_BYTES}")
    instance = start(sengu, port, script, prefix=("sh", "-c", f'exec "$@" 1>{pipe} 2>&1', "sh"))
    script.write()
    with Clients(port) as clients:
        assert instance.cli("reload", "--drained").returncode == 0
        clients.wait_for_answers()
        received = b""

        def read() -> bool:
            nonlocal received
            try:
                received += os.read(reader, 1 << 20)
            except BlockingIOError:
                instance.status()
            return b"lines of output were lost" in received

        wait_until(read)
    lost = re.search(rb"^sengu: (\d+) lines of output were lost", received, re.MULTILINE)
    assert lost is not None
    flooded = re.findall(rb"^flood \d+ (\d{10})[ .]+$", received, re.MULTILINE)
    told = received.count(b" sengu[")
    others = received.count(b"\n") - len(flooded) - told - 1
    assert others == 0, "all lines are whole"
    assert flood_lines <= len(flooded) + int(lost[1]) <= flood_lines + 20  # ours are lost as well
    os.close(reader)


def test_a_deleted_socket_file_is_bound_anew_by_a_deploy(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    path = free_path / "socket"
    instance = start(sengu, port, script, "--path", str(path))
    path.unlink()
    instance.control_path.unlink()
    with Clients(port):
        instance.signal(signal.SIGHUP)
        instance.wait_for_line(f"the file of {path} was removed; it was bound anew")
        instance.wait_for_line(f"the control socket {instance.control_path} was removed")
        instance.wait_event(of_type("generation_retired", generation=1))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(4096).endswith(f"2 0 {workers(instance)[0]['pid']}\n".encode())
    assert instance.stop() == 0
    assert not path.exists()


def test_a_deleted_run_directory_comes_back_and_a_deleted_listener_directory_is_told(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    directory = free_path / "listener"
    directory.mkdir()
    path = directory / "socket"
    run = free_path / "run" / "deep"
    run.mkdir(parents=True)
    instance = start(
        sengu, port, script, "--path", str(path), "--control", str(run / "control.sock")
    )
    instance.control_path = run / "control.sock"
    assert instance.status()["state"] == "serving"
    shutil.rmtree(run.parent)
    shutil.rmtree(directory)
    with Clients(port) as clients:
        instance.signal(signal.SIGHUP)
        instance.wait_for_line(f"the file of {path} was removed or replaced, and cannot bind")
        instance.wait_for_line("was removed; it was bound anew")
        instance.wait_event(of_type("generation_retired", generation=1))
        assert {answer.generation for answer in clients.wait_for_answers()} == {2}
    directory.mkdir()
    assert instance.cli("reload").returncode == 0
    assert path.is_socket()


def test_a_deleted_pid_file_and_status_file_stop_nothing(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    pid_file, status_file = free_path / "pid", free_path / "status"
    instance = start(
        sengu, port, script, "--pid-file", str(pid_file), "--status-file", str(status_file)
    )
    pid_file.unlink()
    status_file.unlink()
    assert instance.cli("reload", "--drained").returncode == 0
    assert status_file.read_text() == f"2:{workers(instance)[0]['pid']}\n"
    pid_file.write_text("another's\n")
    assert instance.stop() == 0
    assert pid_file.read_text() == "another's\n"


def test_a_flood_on_stderr_is_relayed_whole_and_costs_no_memory(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    log = free_path / "log"
    instance = start(sengu, port, script, "--workers", "2", "--log-file", str(log))
    server = instance.server_pid
    before = memory_kib(server, "VmRSS")
    script.write(f"flood {FLOOD_BYTES}")
    with Clients(port):
        assert instance.cli("reload", "--drained").returncode == 0
    assert memory_kib(server, "VmHWM") < before + 4096
    # Ready is who has written all of it; its last lines may be on their way still.
    wait_until(lambda: log.read_bytes().count(b"\nflood ") == 2 * FLOOD_BYTES // FLOOD_LINE_BYTES)
    counts: Counter[str] = Counter()
    with open(log, encoding="ascii") as lines:
        for line in lines:
            if line.startswith("flood"):
                assert len(line) == FLOOD_LINE_BYTES
                counts[line.split()[1]] += 1
    assert list(counts.values()) == [FLOOD_BYTES // FLOOD_LINE_BYTES] * 2


def test_a_flood_that_outlives_its_worker_does_not_hold_up_the_loop(
    sengu: Sengu, port: int, script: Script
) -> None:
    known = descendants()
    script.write("run exec setsid yes >&2")
    # With cgroups it would not outlive it.
    instance = start(sengu, port, script, "--log-file", "/dev/null", "--cgroups", "off")
    script.write()

    def flooders() -> list[int]:
        return [pid for pid in descendants() - known if command_of(pid).startswith(b"yes")]

    wait_until(flooders)
    (flooder,) = flooders()
    for _ in range(3):
        since = last_event(instance)
        kill(workers(instance)[0]["pid"])
        instance.wait_event(of_type("worker_ready"), since=since)
    assert command_of(flooder), "it has flooded all the time"
    kill(flooder)


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def notify_address(pid: int) -> str:
    """The NOTIFY_SOCKET of a worker, once it has executed its program."""
    environment = Path(f"/proc/{pid}/environ")
    wait_until(lambda: b"\0SENGU_SLOT=" in environment.read_bytes())
    prefix = b"NOTIFY_SOCKET="
    found = (v for v in environment.read_bytes().split(b"\0") if v.startswith(prefix))
    return next(found).removeprefix(prefix).decode()


def test_garbage_on_the_notify_socket_is_passed_over(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script)
    before = count_descriptors(instance)
    address = "\0" + notify_address(workers(instance)[0]["pid"])[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        for garbage in (b"", b"\0\xff\n\n=\n==", b"READY", b"STATUS=" + b"x" * 60_000, b"\xc3\x28"):
            sender.send(garbage)
        socket.send_fds(sender, [b"FDSTORE=1\nBARRIER=1"], [0, 1, 2])
        for number in range(2000):
            sender.send(b"WATCHDOG=%d\nMAINPID=1" % number)
        sender.send(b"STATUS=\xff fine")
    wait_until(lambda: workers(instance)[0]["status"].endswith(" fine"))
    assert ask(port).generation == 1
    wait_until(lambda: count_descriptors(instance) <= before)


def test_what_a_stranger_says_on_the_notify_socket_does_not_count(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    needs_root()
    script.write("mute")
    instance = sengu.start("--port", f"127.0.0.1:{port}", "--ready", "notify", *script.command)
    instance.wait_for_line("worker 0 of generation 1 started")
    address = notify_address(workers(instance)[0]["pid"])

    def say(user: int, *lines: str) -> None:
        words = free_path / "words"
        words.write_text("".join(f"tell {line}\n" for line in lines) + "exit 0\n")
        free_path.chmod(0o755)
        subprocess.run(
            [build("puppet"), str(words)],
            env={"NOTIFY_SOCKET": address},
            user=user,
            group=user,
            extra_groups=[],
            check=True,
        )

    say(STRANGER, "STATUS=I am ready", "READY=1")
    say(0, "STATUS=not yet")
    wait_until(lambda: workers(instance)[0]["status"])
    worker = workers(instance)[0]
    assert (worker["status"], worker["state"]) == ("not yet", "starting")
    say(0, "READY=1")
    instance.wait_ready()


def test_a_stranger_gets_no_answer_from_the_control_socket(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    needs_root()
    instance = start(sengu, port, script)
    assert instance.control_path.stat().st_mode & 0o777 == 0o600
    instance.directory.chmod(0o755)
    instance.control_path.chmod(0o666)
    url = ["--unix-socket", str(instance.control_path), "http://localhost/v1/status"]
    curl = [requires("curl"), "--silent", "--show-error", *url]
    refused = subprocess.run(curl, user=STRANGER, capture_output=True, check=False)
    assert refused.returncode != 0
    assert not refused.stdout
    assert b"serving" in subprocess.run(curl, capture_output=True, check=True).stdout


def test_nonsense_on_the_control_socket_harms_nobody_else(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script)
    before = count_descriptors(instance)
    with ExitStack() as stack, Clients(port) as clients:

        def connect() -> socket.socket:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(instance.control_path))  # waits while the queue is full
            client.settimeout(WAIT_SECONDS)
            return client

        url = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: "
        for nonsense in (
            b"\0\1\2\xff\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
            url + b"nine\r\n\r\n",
            url + b"99999999\r\n\r\n" + b"x" * 99_999,
        ):
            client = connect()
            try:
                client.sendall(nonsense)
                client.shutdown(socket.SHUT_WR)
                answer = client.makefile("rb").read()
            except (BrokenPipeError, ConnectionResetError):  # it did not read to the end
                continue
            assert not answer or answer.startswith(
                (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ", b"HTTP/1.1 431 ")
            ), answer
        for _ in range(200):
            connect()  # and says nothing
        half = connect()
        half.sendall(b"GET /v1/status HT")
        impatient = connect()
        impatient.sendall(url + b'13\r\n\r\n{"wait":true}')
        impatient.close()
        instance.wait_event(of_type("deploy_concluded", generation=2))
        for byte in b"TP/1.1\r\nHost: x\r\n\r\n":
            half.sendall(bytes([byte]))
        assert half.recv(100).startswith(b"HTTP/1.1 200 ")
        assert instance.status()["state"] == "serving"
        clients.wait_for_answers()
    wait_until(lambda: count_descriptors(instance) <= before)
