"""What the tests of this tier share: witnesses, which tell what a worker sees, and the peer."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import WAIT_SECONDS, Event, Instance, Output, environment, requires

WITNESS = Path(__file__).with_name("witness.py")

Report = dict[str, Any]


class Witnesses:
    """Commands of witnesses, and what these report."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "witnesses")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._unread: list[Report] = []

    def command(self, *options: str) -> list[str]:
        """A command that runs a witness; see witness.py for the options."""
        return [sys.executable, "-I", "-S", str(WITNESS), self._path, *options]

    def wait(self, event: str = "started", timeout: float = WAIT_SECONDS, **details: Any) -> Report:
        """The first report of `event` with these details that nobody has waited for yet."""
        wanted = {"event": event, **details}
        deadline = time.monotonic() + timeout
        looked_at = 0
        while True:
            for report in self._unread[looked_at:]:
                if wanted.items() <= report.items():
                    self._unread.remove(report)
                    return report
            looked_at = len(self._unread)
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                seen = [(report["event"], report["pid"]) for report in self._unread]
                pytest.fail(f"no {wanted} was reported within {timeout} s, but: {seen}")
            self._unread.append(json.loads(self._socket.recv(1 << 18)))

    def wait_for(self, count: int) -> list[Report]:
        """That many starts."""
        return [self.wait() for _ in range(count)]

    def unread(self) -> list[Report]:
        """What has been reported and not been waited for."""
        while select.select([self._socket], [], [], 0)[0]:
            self._unread.append(json.loads(self._socket.recv(1 << 18)))
        return self._unread

    def close(self) -> None:
        self._socket.close()


class Peer:
    """One run of the real start_server."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [requires("start_server"), *args],
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = Output(self.process.stdout)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for_line(self, pattern: str, timeout: float = WAIT_SECONDS) -> str:
        return self.output.wait_for_line(pattern, timeout, 0)[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.join(1.0)


def concluded(generation: int) -> Callable[[Event], bool]:
    """Tells the event that ends the deploy of that generation."""

    def is_it(event: Event) -> bool:
        return bool(event["type"] == "deploy_concluded" and event["generation"] == generation)

    return is_it


def deploy(instance: Instance) -> None:
    """HUP, and wait until the next generation serves."""
    current = instance.status()["generation"]
    instance.signal(signal.SIGHUP)
    assert instance.wait_event(concluded(current + 1))["outcome"] == "succeeded"


def kept_events(instance: Instance) -> list[Event]:
    """All that has happened so far."""
    lines = instance.cli("events", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def kill(pid: int) -> None:
    """End a worker that a test knows, at once."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_gone(pid: int, timeout: float = WAIT_SECONDS) -> None:
    """Wait until the process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], timeout)[0], f"{pid} still runs after {timeout} s"
    finally:
        os.close(pidfd)
