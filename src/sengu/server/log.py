"""The instance's own log: its lines, and the file or command that they and all output go to."""

import time

from sengu.config.programs import split_log_command
from sengu.errors import UsageError
from sengu.posix import clock
from sengu.posix.loop import Loop
from sengu.server.children import Children
from sengu.server.link import Link
from sengu.server.log_command import LogCommand
from sengu.server.output import Sink
from sengu.wire.supervisor import Output


class Log:
    """Lines for people. `target` is a path, `| command`, or None for the stderr that we have."""

    def __init__(self, name: str, target: str | None, sink: Sink, link: Link) -> None:
        self._name = name
        self._target = target
        self._sink = sink
        self._link = link
        self._words = None if target is None else split_log_command(target)

    @property
    def has_target(self) -> bool:
        return self._target is not None

    def write(self, text: str) -> None:
        now = clock.wall()
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        line = f"{moment}.{int(now * 1000) % 1000:03d} sengu[{self._name}] {text}\n"
        self._sink.write(line.encode(errors="replace"))

    def warn(self, text: str) -> None:
        self.write(f"warning: {text}")

    def open(self, loop: Loop, children: Children, *, is_first: bool) -> None:
        """Let all output go to the target. Raises UsageError.

        A later server finds it there: the supervisor's output is that, and so is ours.
        """
        try:
            if self._words is not None:
                command = LogCommand(loop, children, self._link, tuple(self._words), self.warn)
                if command.is_new:
                    self._turn_to(command.fd)
            elif self._target is not None and is_first:
                self._sink.reopen(self._target)
                self._link.send(Output(), (1,))
        except OSError as error:
            raise UsageError(
                f"cannot open the log file {self._target}: {error.strerror}; "
                "name another with --log-file"
            ) from error

    def reopen(self) -> None:
        """Open the file anew, which somebody may have moved away."""
        if self._target is None or self._words is not None:
            return
        try:
            self._sink.reopen(self._target)
            self._link.send(Output(), (1,))
        except OSError as error:
            self.warn(f"cannot reopen {self._target}: {error.strerror}; the old file is kept")

    def _turn_to(self, fd: int) -> None:
        self._sink.redirect(fd)
        self._link.send(Output(), (fd,))
