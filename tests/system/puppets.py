"""Workers that misbehave on demand, and clients that notice: for the tests of faults and loads."""

import errno
import functools
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from tests.support import WAIT_SECONDS, Instance, Sengu, give_up, requires

PROGRAMS = Path(__file__).with_name("programs")
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
_RETRY_SECONDS = 0.005
_IN_HAND = b"HTTP/1.1 102 Processing\r\n\r\n"


@functools.cache
def build(name: str, *flags: str) -> str:
    """Compiles a program of the directory `programs`, once in a process of pytest."""
    directory = tempfile.TemporaryDirectory(prefix="sengu-build-")
    _kept.append(directory)
    os.chmod(directory.name, 0o755)  # tests with another user run it too
    program = f"{directory.name}/{name}"
    source = str(PROGRAMS / f"{name}.c")
    subprocess.run([requires("gcc"), *_FLAGS, *flags, "-o", program, source], check=True)
    return program


_kept: list[tempfile.TemporaryDirectory[str]] = []


class Script:
    """What puppets do when they start; see programs/puppet.c. Change it, and deploy."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "script"
        self.write()

    def write(self, *lines: str) -> None:
        # By rename: a worker that starts just now reads the old ones or the new ones.
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.rename(self.path)

    @property
    def command(self) -> tuple[str, ...]:
        return "--", build("puppet"), str(self.path)


def start(sengu: Sengu, port: int, script: Script, *options: str) -> Instance:
    """An instance of puppets on `port`, when it is ready."""
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--ready", "notify", *options, *script.command)
    )
    return instance.wait_ready()


class Gate:
    """Workers whose script says `wait PATH` do not go on until `open`."""

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self.path = directory / name
        self._fd = -1
        os.mkfifo(self.path)

    @property
    def line(self) -> str:
        return f"wait {self.path}"

    def wait_for_somebody(self) -> None:
        """Wait until a worker has come to the gate."""

        def look() -> bool:
            try:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads (fifo(7))
                    raise
            return self._fd >= 0

        wait_until(look, "a worker at the gate")

    def open(self) -> None:
        """Let those pass who wait."""
        os.close(self._fd)


class Answer(NamedTuple):
    """Who has answered."""

    generation: int
    slot: int
    pid: int


def ask(port: int, path: str = "/") -> Answer:
    """One request on a connection of its own. Raises OSError or ValueError when it fails."""
    with connect(port, path) as client:
        return read_answer(client)


def connect(port: int, path: str) -> socket.socket:
    """A connection on which a request was sent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def read_answer(client: socket.socket) -> Answer:
    text = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    head, separator, body = text.partition("\r\n\r\n")
    if not separator or not head.startswith("HTTP/1.1 200 "):
        raise ValueError(f"answer {text!r}")
    return Answer(*map(int, body.split()))


class Pending:
    """A slow request that is in a worker's hands: it has said so (102, RFC 2518 §10.1)."""

    def __init__(self, port: int, milliseconds: int) -> None:
        self._client = connect(port, f"/slow/{milliseconds}")
        interim = self._client.recv(len(_IN_HAND), socket.MSG_WAITALL)
        assert interim == _IN_HAND, interim

    def answer(self) -> Answer:
        """Waits for it. Raises OSError or ValueError when it fails."""
        with self._client:
            return read_answer(self._client)


class Clients:
    """Threads that ask again and again while the block lasts. No request may fail."""

    def __init__(self, port: int, threads: int = 3) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self.answers: list[Answer] = []
        self._began: list[float] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                answer = ask(self._port)
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                return
            with self._changed:
                self._began.append(began)
                self.answers.append(answer)
                self._changed.notify_all()

    def wait_for_answers(self, count: int = 30) -> list[Answer]:
        """So many answers to requests that begin from now on."""
        now = time.monotonic()

        def fresh() -> list[Answer]:
            pairs = zip(self._began, self.answers, strict=True)
            return [answer for began, answer in pairs if began > now]

        with self._changed:
            enough = self._changed.wait_for(
                lambda: len(fresh()) >= count or bool(self.failures), WAIT_SECONDS
            )
            assert not self.failures
            assert enough, f"{len(fresh())} answers within {WAIT_SECONDS} s"
            return fresh()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        if kind is None:
            assert not self.failures
            assert self.answers


class CommandInThread:
    """`sengu ARGS` under way; `result()` waits for its end."""

    def __init__(self, instance: Instance, *args: str) -> None:
        self._outcome: list[subprocess.CompletedProcess[str]] = []
        self._thread = threading.Thread(
            target=lambda: self._outcome.append(instance.cli(*args)), daemon=True
        )
        self._thread.start()

    def result(self) -> subprocess.CompletedProcess[str]:
        self._thread.join(WAIT_SECONDS)
        assert self._outcome, "the command has not ended in time"
        return self._outcome[0]


def workers(instance: Instance, generation: int | None = None) -> list[dict[str, Any]]:
    """The workers that `status` shows, those in back-off included."""
    found: list[dict[str, Any]] = instance.status()["workers"]
    return [w for w in found if generation in (None, w["generation"])]


def pids(instance: Instance, generation: int | None = None) -> set[int]:
    """Pids of the living workers."""
    return {w["pid"] for w in workers(instance, generation) if w["pid"] is not None}


def of_type(kind: str, **fields: object) -> Callable[[dict[str, Any]], bool]:
    """For `Instance.wait_event`: an event of that type with these fields."""

    def matches(event: dict[str, Any]) -> bool:
        return event["type"] == kind and fields.items() <= event.items()

    return matches


def last_event(instance: Instance) -> int:
    return int(instance.status()["last_event"])


def wait_until(condition: Callable[[], object], what: object = "") -> None:
    """For what nobody tells: looks again and again. The last resort. `what` is told if in vain."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {WAIT_SECONDS} s: {what or condition}")
        threading.Event().wait(_RETRY_SECONDS)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def memory_kib(pid: int, field: str) -> int:
    """A line of /proc/PID/status, such as VmRSS or VmHWM."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match is not None
    return int(match[1])


def wait_busy(pid: int) -> None:
    """Until it has used a tenth of a second of CPU time from now on."""

    def ticks() -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

    begun = ticks()
    wait_until(lambda: ticks() - begun > os.sysconf("SC_CLK_TCK") / 10)


def children(pid: int) -> set[int]:
    """Its children, zombies included. One look may miss some if another of them ends meanwhile."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    while (found := path.read_text()) != path.read_text():
        pass
    return set(map(int, found.split()))


def household(instance: Instance) -> set[int]:
    """Children of the main process besides the server, zombies included."""
    return children(instance.pid) - {instance.server_pid}


def descriptors(pid: int) -> list[str]:
    """What its descriptors are, in order of their targets."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sorted(found)


def in_namespace(*flags: str) -> tuple[str, ...]:
    """A prefix that runs the rest in namespaces of its own: `unshare FLAGS`.

    Root is not needed where the system lets users make namespaces.
    """
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    program = requires("unshare")
    tried = subprocess.run(
        [program, *user, *flags, "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        give_up(f"namespaces cannot be made here: {tried.stderr.strip()}")
    return program, *user, *flags


def texts(events: Iterable[dict[str, Any]]) -> list[str]:
    return [str(event["text"]) for event in events]
