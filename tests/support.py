"""Runs the real program for tests, as a person would: by its command line and its socket.

Nothing of sengu is imported, so that the tests also hold for an installed wheel. Nothing sleeps:
waits are on pipes, on the notify socket, on the event stream and on pidfds.
"""

import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, Self

import pytest

from tests.processes import SETTLE_SECONDS, become_subreaper, descendants, kill_descendants

PROGRAM = (sys.executable, "-m", "sengu")
WAIT_SECONDS = 20.0

# What the surroundings of the tests might tell a manager or a worker.
_FOREIGN_VARIABLES = re.compile(
    r"LISTEN_|NOTIFY_SOCKET$|WATCHDOG_|SERVER_STARTER_|SENGU_"
    r"|(ENVDIR|KILL_OLD_DELAY|ENABLE_AUTO_RESTART|AUTO_RESTART_INTERVAL)$"
)

Event = dict[str, Any]


def give_up(reason: str) -> NoReturn:
    """The machine lacks what the test needs: a failure in CI, a skip on a desk."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def requires(program: str) -> str:
    """The path of a program that a test runs."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        give_up(f"{program} is not installed; tools/apt-packages-test.txt lists what tests run")
    return path


def needs_root() -> None:
    """For a test that changes users."""
    if os.geteuid() != 0:
        give_up("needs root, to be another user")


def lacks_cgroups(reason: str) -> NoReturn:
    """No cgroup can be made here, for that reason. A failure in CI where one could be."""
    assert "cgroup" in reason
    mounts = [line.split(" ") for line in Path("/proc/mounts").read_text().splitlines()]
    points = [point for _, point, kind, *_ in mounts if kind == "cgroup2"]
    is_ours = os.geteuid() == 0 and not os.path.exists("/run/systemd/system")
    if is_ours and any(os.access(point, os.W_OK) for point in points):
        give_up(reason)
    pytest.skip(reason)


def short_directory() -> Path:
    """A new directory whose path leaves room in the 107 bytes of a UNIX socket's name."""
    return Path(tempfile.mkdtemp(prefix="sengu-", dir="/tmp"))


class Reply(NamedTuple):
    """An answer of the control socket; `body` is decoded JSON, None when there is none."""

    status: int
    body: Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX stream socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Output:
    """The lines that a process writes, read by a thread so that the pipe never fills up."""

    def __init__(self, pipe: IO[str]) -> None:
        self.lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, timeout: float, after: int) -> re.Match[str]:
        """The first match in the lines from index `after` on, those of the future included."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                after = max(after, len(self.lines))
                left = deadline - time.monotonic()
                if self._ended or not self._changed.wait(timeout=max(0.0, left)):
                    pytest.fail(f"no line matched {pattern!r} in:\n{self}")

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)


class Instance:
    """One `sengu start`, `serve`, `work` or `consume` and the ways to talk to it. Made by `Sengu`.

    `command` begins with the verb.
    """

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        env: Mapping[str, str],
        cwd: Path | None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        verb, *args = command
        self.name = name
        self.directory = short_directory()
        self.control_path = self.directory / "control.sock"
        self._env = env
        self._notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify_path = str(self.directory / "notify.sock")
        self._notify_socket.bind(notify_path)
        self.notifications: list[str] = []
        self.process = subprocess.Popen(
            [
                *prefix,
                *PROGRAM,
                verb,
                "--name",
                name,
                "--control",
                str(self.control_path),
                *args,
            ],
            env={"NOTIFY_SOCKET": notify_path, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self.process.pid)
        assert self.process.stdout is not None
        self.output = Output(self.process.stdout)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def server_pid(self) -> int:
        """The server's process: a child of the main one, and another after each of its deaths."""
        return int(self.status()["server_pid"])

    @property
    def lines(self) -> list[str]:
        """What the instance and its workers wrote to stdout and stderr so far."""
        return self.output.lines

    def wait_for_line(
        self, pattern: str, timeout: float = WAIT_SECONDS, after: int = 0
    ) -> re.Match[str]:
        return self.output.wait_for_line(pattern, timeout, after)

    def wait_ready(self, timeout: float = WAIT_SECONDS) -> Self:
        """Waits until the instance tells its own manager READY=1."""
        self.wait_notified("READY=1", timeout)
        return self

    def wait_notified(self, line: str, timeout: float = WAIT_SECONDS) -> None:
        """Waits for a line such as `STOPPING=1` on the notify socket, past ones included."""
        deadline = time.monotonic() + timeout
        while not any(line in text.splitlines() for text in self.notifications):
            left = max(0.0, deadline - time.monotonic())
            notify_fd = self._notify_socket.fileno()
            ready = select.select([notify_fd, self._pidfd], [], [], left)[0]
            if notify_fd not in ready:
                happened = "it exited" if ready else f"{timeout} s went by"
                pytest.fail(f"{happened} before {line}:\n{self.output}")
            self.notifications.append(self._notify_socket.recv(65536).decode())

    def control(self, method: str, path: str, body: object = None) -> Reply:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        with closing(UnixConnection(self.control_path, WAIT_SECONDS)) as connection:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
        return Reply(response.status, json.loads(text) if text else None)

    def status(self) -> dict[str, Any]:
        reply = self.control("GET", "/v1/status")
        assert reply.status == 200, reply
        return dict(reply.body)

    def events(self, since: int = 0, timeout: float = WAIT_SECONDS) -> Generator[Event]:
        """Events after number `since` until the instance ends, whichever server tells of them.

        TimeoutError when none comes in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                with closing(self._events_of_one_server(since, deadline)) as events:
                    for event in events:
                        since = event["id"]
                        yield event
            except (BrokenPipeError, ConnectionResetError):  # it was killed
                continue
            except (ConnectionRefusedError, FileNotFoundError):
                return

    def _events_of_one_server(self, since: int, deadline: float) -> Generator[Event]:
        """Server-sent events (HTML standard §9.2): `data:` lines up to an empty line."""
        left = max(0.001, deadline - time.monotonic())
        with closing(UnixConnection(self.control_path, left)) as connection:
            connection.request("GET", f"/v1/events?since={since}")
            link = connection.sock  # http.client forgets it when the answer ends by closing
            response = connection.getresponse()
            assert response.status == 200, response.status
            data: list[bytes] = []
            with response:
                while line := response.readline():
                    if line.startswith(b"data:"):
                        data.append(line.removeprefix(b"data:"))
                    elif not line.strip() and data:
                        yield json.loads(b"\n".join(data))
                        data.clear()
                    if (left := deadline - time.monotonic()) <= 0:
                        raise TimeoutError
                    link.settimeout(left)

    def wait_event(
        self, predicate: Callable[[Event], bool], timeout: float = WAIT_SECONDS, since: int = 0
    ) -> Event:
        """The first event after number `since` that satisfies `predicate`."""
        seen = []
        with suppress(TimeoutError), closing(self.events(since, timeout)) as events:
            for event in events:
                if predicate(event):
                    return event
                seen.append(event)
        listing = "\n".join(map(str, seen))
        pytest.fail(f"no such event within {timeout} s, but:\n{listing}\noutput:\n{self.output}")

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs `sengu ARGS` against this instance."""
        return run_cli((*args, "--control", str(self.control_path)), self._env)

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout: float = WAIT_SECONDS) -> int:
        """Waits for the main process to end; its exit code, or minus the signal's number."""
        if not select.select([self._pidfd], [], [], timeout)[0]:
            pytest.fail(f"{self.name} still runs after {timeout} s:\n{self.output}")
        return self.process.wait()

    def stop(self, timeout: float = WAIT_SECONDS) -> int:
        """TERM, then as `wait`."""
        with suppress(ProcessLookupError):  # it ended before
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def close(self) -> list[str]:
        """Ends the process if it runs; returns what was wrong with its end."""
        problems = []
        try:
            self.stop()
        except pytest.fail.Exception:
            problems.append(f"{self.name} did not end by TERM within {WAIT_SECONDS} s")
            with suppress(ProcessLookupError):  # it ended just now
                self.signal(signal.SIGKILL)
            self.wait()
        if self.process.returncode != -signal.SIGKILL and self.control_path.exists():
            problems.append(f"{self.name} left its control socket")
        return problems

    def release(self) -> None:
        """Frees what the test holds; after all processes that could write to it have ended."""
        self.output.join(SETTLE_SECONDS)
        os.close(self._pidfd)
        self._notify_socket.close()
        shutil.rmtree(self.directory)


class Sengu:
    """Starts instances and, at the end of a test, sees that nothing of them is left."""

    def __init__(self) -> None:
        become_subreaper()
        self._known = descendants()
        self.instances: list[Instance] = []

    def start(
        self,
        *args: str,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Instance:
        """Runs `sengu start ARGS` in a session of its own, and does not wait for anything.

        `prefix` is a command that arranges something and then executes the rest, as `nice` does.
        """
        return self._launch(("start", *args), name, env, cwd, prefix)

    def serve(
        self,
        target: str,
        *options: str,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Instance:
        """Runs `sengu serve TARGET OPTIONS` likewise."""
        return self._launch(("serve", target, *options), name, env, cwd, prefix)

    def work(
        self,
        target: str,
        *options: str,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Instance:
        """Runs `sengu work TARGET OPTIONS` likewise."""
        return self._launch(("work", target, *options), name, env, cwd, prefix)

    def consume(
        self,
        target: str,
        *options: str,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Instance:
        """Runs `sengu consume TARGET OPTIONS` likewise."""
        return self._launch(("consume", target, *options), name, env, cwd, prefix)

    def _launch(
        self,
        command: tuple[str, ...],
        name: str,
        env: Mapping[str, str] | None,
        cwd: Path | None,
        prefix: tuple[str, ...],
    ) -> Instance:
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        instance = Instance(name, command, environment(env), cwd, prefix)
        self.instances.append(instance)
        return instance

    def run(
        self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `sengu ARGS` to its end."""
        return run_cli(args, environment(env), cwd)

    def close(self) -> None:
        problems = [problem for instance in self.instances for problem in instance.close()]
        if leaked := kill_descendants(self._known):
            problems.append(f"left running, killed by the test: {sorted(leaked)}")
        for instance in self.instances:
            instance.release()
        if problems:
            pytest.fail("; ".join(problems))


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what was meant for us, and `extra`."""
    own = {name: text for name, text in os.environ.items() if not _FOREIGN_VARIABLES.match(name)}
    return own | dict(extra or {})


def run_cli(
    args: Iterable[str], env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
