"""What all measured programs have in common: they run in a session, and end when they are told to.

Managers and web servers build on it.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bench import processes
from bench.session import BenchError

_END_SECONDS = 30.0
_TERM_AGAIN_SECONDS = 3.0

# What our surroundings might tell a manager or a worker.
_FOREIGN_VARIABLES = re.compile(
    r"LISTEN_|NOTIFY_SOCKET$|WATCHDOG_|SERVER_STARTER_|SENGU_"
    r"|(ENVDIR|KILL_OLD_DELAY|ENABLE_AUTO_RESTART|AUTO_RESTART_INTERVAL|WEB_CONCURRENCY)$"
)


class Program(ABC):
    """A running program in a session of its own. Use it as a context manager."""

    label: ClassVar[str]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        argv = [*self.prefix, *self.prepare()]
        with self.output.open("wb") as output:
            self.started_at = time.monotonic()
            self._process = subprocess.Popen(
                argv,
                cwd=directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @classmethod
    @abstractmethod
    def version(cls) -> str | None:
        """None when it is not installed."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write configuration files into `directory`; the command line to run."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs the command line, as `env` would."""
        return ()

    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not _FOREIGN_VARIABLES.match(k)}

    @property
    def pid(self) -> int:
        return self._process.pid

    def check_alive(self) -> None:
        if self._process.poll() is not None:
            words = self.output.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self.label} ended with status {self._process.returncode}:\n{words}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        members = processes.tree(self.pid)
        try:
            self._end()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            if kind is None:
                raise BenchError(f"{self.label} did not end by TERM") from None
        finally:
            processes.wait_gone(members, _END_SECONDS)

    def _end(self) -> None:
        """TERM, again and again: Circus forgets one that comes while it starts."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            self._process.terminate()
            try:
                self._process.wait(_TERM_AGAIN_SECONDS)
                return
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise


def distribution_version(name: str) -> str | None:
    """Of what pip has installed beside us; None if it has not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_version(*command: str) -> str | None:
    """The first number with dots in what a program says of itself; None if it is not there."""
    if shutil.which(command[0]) is None:
        return None
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else None


def last_line(said: str) -> str:
    """Where programs write what went wrong."""
    return said.strip().rpartition("\n")[2]
