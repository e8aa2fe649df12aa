"""A process that can not be mistaken for another, and how it ended."""

import contextlib
import os
import signal


class Process:
    """A process, known by a pidfd so that its number can not come to mean another's.

    `pidfd` is -1 once it is closed.
    """

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    @property
    def is_open(self) -> bool:
        return self.pidfd >= 0

    def signal(self, number: int) -> None:
        """Send a signal. One that has exited hears nothing, which is told, nor another user's."""
        if self.is_open:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        if self.is_open:
            os.close(self.pidfd)
            self.pidfd = -1


def describe_status(status: int) -> str:
    """A wait status in words (wait(2))."""
    if os.WIFSIGNALED(status):
        core = ", core dumped" if os.WCOREDUMP(status) else ""
        return f"signal {signal_name(os.WTERMSIG(status))}{core}"
    return f"exit status {os.WEXITSTATUS(status)}"


def signal_name(number: int) -> str:
    """TERM for 15; real-time signals by number."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:  # real-time signals between RTMIN and RTMAX have no name in Python
        return str(number)
