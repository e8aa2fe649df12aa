"""An instance of sengu, handled as its user would: by the command `sengu`, and nothing else.

Used by `story`.
"""

import os
import re
import select
import shlex
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from sengu.config.settings.start import SETTINGS
from sengu.control import api
from sengu.control.client import ControlClient
from sengu.demo.child import Child, Command
from sengu.demo.site import CURRENT, SERVER
from sengu.errors import SenguError
from sengu.posix.loop import Loop

NAME = "demo"
_CONTROL = "control.sock"
_NOTIFY = "notify.sock"
_SENGU = (sys.executable, "-P", "-m", "sengu")
_START_SECONDS = 30.0
_VERB_SECONDS = 60.0
_LOG_LINES = 30

# What the surroundings of the demonstration may say to a manager is not meant for this one.
_FOREIGN = re.compile(r"LISTEN_|NOTIFY_SOCKET$|WATCHDOG_|SERVER_STARTER_|SENGU_")
_SETTINGS = frozenset(setting.env for setting in SETTINGS if setting.env)


class Said(msgspec.Struct, frozen=True):
    """How a run of the command went."""

    exit_code: int
    lines: tuple[str, ...]

    @property
    def complaint(self) -> tuple[str, ...]:
        """From the error on, which is what it says last."""
        starts = [i for i, line in enumerate(self.lines) if line.startswith("sengu: error:")]
        return self.lines[starts[0] :] if starts else self.lines[-1:]


class Instance:
    """One `sengu start` in `directory`. `stack` ends what is started."""

    def __init__(self, loop: Loop, stack: ExitStack, directory: Path) -> None:
        self._loop = loop
        self._stack = stack
        self._directory = directory
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._server: Child | None = None

    @property
    def control(self) -> ControlClient:
        return ControlClient(str(self._directory / _CONTROL))

    @property
    def address(self) -> str:
        """Where it listens: port 0 was asked for, the kernel has chosen."""
        return self.control.status().listeners[0].address

    def start_words(self, workers: int) -> list[str]:
        """What follows the word `sengu`."""
        port = "127.0.0.1:0"
        program = [sys.executable, f"{CURRENT}/{SERVER}"]
        options = ["--workers", str(workers), "--ready", "notify"]
        place = ["--name", NAME, "--control", _CONTROL]
        return ["start", *place, "--port", port, *options, "--", *program]

    def start(self, workers: int) -> None:
        """Returns when all workers are ready. Raises SenguError with the log when they are not."""
        with self._told_of_readiness() as is_ready:
            told = {"NOTIFY_SOCKET": str(self._directory / _NOTIFY)}
            self._server = self.run(self.start_words(workers), self._log.append, told)
            self._stack.enter_context(self._server)
            if not self.wait(is_ready, _START_SECONDS):
                raise SenguError(
                    f"sengu start was not ready within {_START_SECONDS:g} s; it wrote:\n"
                    + "\n".join(self._log)
                )

    @contextmanager
    def _told_of_readiness(self) -> Iterator[Callable[[], bool]]:
        """We are the service manager, which is told READY=1 (sd_notify(3))."""
        notified: list[str] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(self._directory / _NOTIFY))
            self._loop.watch(
                receiver.fileno(),
                select.EPOLLIN,
                lambda: notified.extend(receiver.recv(4096).decode().split("\n")),
            )
            try:
                yield lambda: "READY=1" in notified
            finally:
                self._loop.unwatch(receiver.fileno())

    def run(
        self,
        words: list[str],
        on_line: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Run `sengu WORDS`."""
        surroundings = {**_clean_environment(), **(environment or {})}
        command = Command((*_SENGU, *words), self._directory, surroundings)
        return Child(self._loop, command, on_line)

    def verb_words(self, verb: str, *options: str) -> list[str]:
        """What follows the word `sengu`, for a verb that is about this instance."""
        return [verb, *options, "--control", _CONTROL]

    def call(self, words: list[str]) -> Said:
        """Run `sengu WORDS` to its end."""
        lines: list[str] = []
        with self.run(words, lines.append) as child:
            if not wait(self._loop, lambda: child.is_over, _VERB_SECONDS):
                raise SenguError(f"sengu {shlex.join(words)} still runs after {_VERB_SECONDS:g} s")
            return Said(child.exit_code(), tuple(lines))

    def follow(self, on_record: Callable[[api.Record], None]) -> None:
        """Have all events told, from the first one on."""

        def hear(line: str) -> None:
            if line.startswith("{"):
                on_record(api.decode_record(line.encode()))

        words = self.verb_words("events", "--follow", "--since", "0", "--json")
        self._stack.enter_context(self.run(words, hear))

    def stop(self, words: list[str]) -> int:
        """Run the verb that stops it; the exit code of `sengu start`."""
        said = self.call(words)
        server = self._server
        assert server is not None
        wait(self._loop, lambda: server.is_over, _VERB_SECONDS)
        return said.exit_code or server.exit_code()

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let things happen until the condition holds; False when time is up before that.

        Raises SenguError when the instance is gone: nothing that is waited for will happen.
        """
        server = self._server

        def is_enough() -> bool:
            return condition() or (server is not None and server.is_over)

        wait(self._loop, is_enough, seconds)
        if condition():
            return True
        if server is not None and server.is_over:
            raise SenguError(
                f"sengu start ended with exit code {server.exit_code()}; it wrote last:\n"
                + "\n".join(self._log)
            )
        return False


def _clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not _FOREIGN.match(name) and name not in _SETTINGS
    }


def show(words: list[str]) -> str:
    """The command `sengu WORDS` as one would type it."""
    python = Path(sys.executable)
    return "$ sengu " + shlex.join(python.name if word == str(python) else word for word in words)


def wait(loop: Loop, condition: Callable[[], bool], seconds: float) -> bool:
    """Run the loop until the condition holds; False when time is up before that."""
    deadline = loop.now() + seconds
    while not condition():
        if loop.now() >= deadline:
            return False
        loop.run_once(deadline)
    return True
