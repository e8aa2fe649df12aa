"""Waiting with an end: deadlines, and what is raised when a wait is cut short.

Imported by the verbs that wait.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager

from sengu.cli.exits import Exit
from sengu.control.client import NoAnswerError
from sengu.errors import SenguError
from sengu.posix import clock

_LEAST_SECONDS = 0.001  # a socket with a timeout of 0 would not wait but refuse to


class SupersededError(SenguError):
    """A later deploy took the place of ours."""

    exit_code = Exit.SUPERSEDED


class TimedOutError(SenguError):
    """The time the user gave us is over; what was asked for goes on."""

    exit_code = Exit.TIMED_OUT


class InterruptedWaitError(SenguError):
    """The user has had enough of waiting; what was asked for goes on."""

    exit_code = Exit.INTERRUPTED


class Deadline:
    """The end of all waiting of one verb, `seconds` from now; None is never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else clock.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, a little more than none when it is over; None for ever."""
        return None if self._at is None else max(_LEAST_SECONDS, self._at - clock.monotonic())

    def is_over(self) -> bool:
        return self._at is not None and self._at <= clock.monotonic()


@contextmanager
def waiting_for(goes_on: str, deadline: Deadline) -> Iterator[None]:
    """Say what goes on without us when waiting ends early. Raises SenguError for it."""
    try:
        yield
    except NoAnswerError as problem:
        if not deadline.is_over():  # we would wait on, but whom we ask does not answer
            raise NoAnswerError(f"{problem}; {goes_on}") from None
        raise TimedOutError(f"timed out after {deadline.seconds:g} s; {goes_on}") from None
    except KeyboardInterrupt:
        raise InterruptedWaitError(f"interrupted; {goes_on}") from None


def wait_for_exit(pidfd: int, seconds: float | None) -> bool:
    """Whether the process is gone within that time; a zombie is gone (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
