"""A process of the demonstration, whose output the loop reads line by line.

Each has a session of its own: Ctrl-C is for the demonstration, which then ends them in order.
Used by `story`.
"""

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from sengu.posix import prctl
from sengu.posix.loop import Loop

_PIECE_BYTES = 65536
_KILL_AFTER_SECONDS = 10.0


class Command(msgspec.Struct, frozen=True):
    """What to run, and where."""

    argv: Sequence[str]
    directory: Path
    environment: Mapping[str, str]


class Child:
    """Runs from its making to `close`. `on_line` gets each line of its stdout and stderr."""

    def __init__(self, loop: Loop, command: Command, on_line: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_line = on_line
        self._rest = b""
        self.is_over = False
        self._process = subprocess.Popen(
            command.argv,
            cwd=command.directory,
            env=command.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Even a demonstration that is killed leaves nothing behind. It has no threads.
            preexec_fn=lambda: prctl.set_parent_death_signal(signal.SIGTERM),  # noqa: PLW1509
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        loop.watch(self._output, select.EPOLLIN, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def end_input(self) -> None:
        self._stdin.close()

    def exit_code(self) -> int:
        """To be asked when it is over: whoever closes its output is about to exit."""
        return self._process.wait(_KILL_AFTER_SECONDS)

    def close(self) -> None:
        """End it, if it has not ended, and let go of it."""
        if self._process.poll() is None:
            self._process.terminate()
            self._wait_or_kill()
        self._stdin.close()
        self._forget_output()

    def _wait_or_kill(self) -> None:
        """A process that cannot write can not end either: read on while waiting for it."""
        deadline = self._loop.now() + _KILL_AFTER_SECONDS
        while not self.is_over and self._loop.now() < deadline:
            self._loop.run_once(deadline)
        try:
            self._process.wait(max(0.0, deadline - self._loop.now()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _forget_output(self) -> None:
        if self._process.stdout and not self._process.stdout.closed:
            self._loop.unwatch(self._output)
            self._process.stdout.close()

    def _read(self) -> None:
        try:
            piece = os.read(self._output, _PIECE_BYTES)
        except BlockingIOError:  # the loop was told, but what it was told of is gone
            return
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not piece:
            self.is_over = True
            self._forget_output()
            if self._rest:
                lines.append(self._rest)
        for line in lines:
            self._on_line(line.decode(errors="replace"))
