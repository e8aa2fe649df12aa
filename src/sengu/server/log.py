"""The instance's own log: its lines, and the file or command that they and all output go to."""

import signal
import sys
import time

from sengu.config.boot import Files, Rotation
from sengu.config.programs import split_log_command
from sengu.errors import UsageError
from sengu.posix import clock
from sengu.posix.loop import Loop
from sengu.server.children import Children
from sengu.server.link import Link
from sengu.server.log_command import LogCommand
from sengu.server.output import Sink
from sengu.wire.supervisor import Output

_WRITER = (sys.executable, "-P", "-m", "sengu.logwriter")


class Log:
    """Lines for people. They go to a file, to a command, or to the stderr that we have."""

    def __init__(self, name: str, files: Files, sink: Sink, link: Link) -> None:
        self._name = name
        self._target = files.log
        self._sink = sink
        self._link = link
        self._has_writer = files.rotation is not None
        self._words: list[str] | None = None
        self._command: LogCommand | None = None
        if files.log is not None and files.rotation is not None:
            self._words = _writer_words(files.log, files.rotation)
        elif files.log is not None:
            self._words = split_log_command(files.log)

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
                self._command = command
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
        if self._command is not None and self._has_writer:
            self._command.signal(signal.SIGUSR1)
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


def _writer_words(path: str, rotation: Rotation) -> list[str]:
    """What `sengu.logwriter` is started with."""
    words = [*_WRITER, path, f"keep={rotation.keep}"]
    if rotation.size_bytes is not None:
        words.append(f"size={rotation.size_bytes}")
    if rotation.age_seconds is not None:
        words.append(f"age={rotation.age_seconds}")
    if rotation.compress:
        words.append("compress")
    return words
