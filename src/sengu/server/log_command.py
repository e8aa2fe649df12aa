"""`--log-file '| command'`: our output is a command's stdin.

We keep both ends of the pipe, so when the command dies what was written waits for the next one.
"""

import os
import select
from collections.abc import Callable

from sengu.errors import UsageError
from sengu.posix.loop import Loop
from sengu.posix.process import Children, Exec, Process

_RESTART_SECONDS = 1.0


class LogCommand:
    """Keeps the command running. `fd` is where to write."""

    def __init__(
        self, loop: Loop, children: Children, argv: tuple[str, ...], warn: Callable[[str], None]
    ) -> None:
        """Raises UsageError when no process can be made."""
        self._loop = loop
        self._children = children
        self._argv = argv
        self._warn = warn
        self._read_end, self.fd = os.pipe2(os.O_CLOEXEC)
        # Its own output goes where ours went before it became the command's input.
        self._outputs = (os.dup(1), os.dup(2))
        try:
            self._start()
        except OSError as error:
            raise UsageError(f"cannot start the log command: {error.strerror}") from error

    def _start(self) -> None:
        stdout, stderr = self._outputs
        process = self._children.spawn(
            Exec(
                self._argv,
                os.environ,
                {0: self._read_end, 1: stdout, 2: stderr},
                death_signal=0,  # it shall live on to read what we wrote last
            )
        )
        self._loop.watch(process.pidfd, select.EPOLLIN, lambda: self._on_exit(process))

    def _restart(self) -> None:
        try:
            self._start()
        except OSError as error:
            self._warn(f"cannot start the log command again: {error.strerror}")
            self._loop.call_at(self._loop.now() + _RESTART_SECONDS, self._restart)

    def _on_exit(self, process: Process) -> None:
        how = self._children.exit_of(process)
        if how is None:
            return
        self._loop.unwatch(process.pidfd)
        process.close()
        self._warn(f"the log command exited with {how}; it is started again")
        self._loop.call_at(self._loop.now() + _RESTART_SECONDS, self._restart)
