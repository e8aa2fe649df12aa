"""`sengu stop`: stop an instance, and wait until its process is gone."""

import os

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.text import say
from sengu.cli.waiting import Deadline, TimedOutError, wait_for_exit, waiting_for
from sengu.cli.which import changes_instance
from sengu.control.client import ControlClient


@click.command(
    "stop",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.TIMED_OUT, Exit.INTERRUPTED),
    examples=(
        ("sengu stop web", "Let the workers finish what they have in hand."),
        ("sengu stop web --now", "Kill them."),
    ),
)
@click.option("--now", is_flag=True, help="Do not let workers finish.")
@duration_option("--timeout", "Stop waiting after so long; the stop goes on.")
@changes_instance
def command(client: ControlClient, now: bool, timeout: float | None) -> int:
    """Stop an instance, and wait until its process is gone.

    NAME is the name of the current directory if left out. Workers are asked to stop, and killed
    when they are still there after the instance's --grace.
    """
    status = client.status()
    deadline = Deadline(timeout)
    goes_on = f"{status.name!r} (process {status.pid}) goes on stopping"
    # Held before we ask: afterwards the number might be another process's.
    pidfd = _hold(client.process_id())
    with waiting_for(goes_on, deadline):
        client.stop(immediate=now)
        say(f"stopping {status.name!r} (process {status.pid})")
        if pidfd is None:
            _wait_for_silence(client, deadline)
        elif not wait_for_exit(pidfd, deadline.left()):
            raise TimedOutError(f"timed out after {timeout:g} s; {goes_on}")
    return Exit.OK


def _hold(pid: int) -> int | None:
    """A pidfd; None when the process cannot be seen from here, as from within a container."""
    try:
        return os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        return None


def _wait_for_silence(client: ControlClient, deadline: Deadline) -> None:
    """Read events until there are no more, because who sent them is gone."""
    with client.events(None, follow=True) as stream:
        while stream.read(deadline.left()) is not None:
            pass
