"""Waiting with an end: what is raised when a wait is cut short.

Imported by the verbs that wait.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager

from sengu.cli.exits import Exit
from sengu.control.asking import NoAnswerError
from sengu.control.deadline import Deadline
from sengu.errors import SenguError


class SupersededError(SenguError):
    """A later deploy took the place of ours."""

    exit_code = Exit.SUPERSEDED


class TimedOutError(SenguError):
    """The time the user gave us is over; what was asked for goes on."""

    exit_code = Exit.TIMED_OUT


class InterruptedWaitError(SenguError):
    """The user has had enough of waiting; what was asked for goes on."""

    exit_code = Exit.INTERRUPTED


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
