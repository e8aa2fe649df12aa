"""`sengu stop`: stop an instance, and wait until its process is gone."""

import os
from contextlib import suppress

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.text import duration, say
from sengu.cli.waiting import TimedOutError, wait_for_exit, waiting_for
from sengu.cli.which import changes_instance
from sengu.control.api import Status
from sengu.control.asking import WentAwayError
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline
from sengu.errors import NotRunningError


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
    when they are still there after the instance's --grace. With --lame-duck they serve on for so
    long before; to stop once more ends that.
    """
    status = client.status()
    deadline = Deadline(timeout)
    goes_on = f"{status.name!r} (process {status.pid}) goes on stopping"
    # Held before we ask: afterwards the number might be another process's.
    pidfd = _hold(_main_process(client, status))
    with waiting_for(goes_on, deadline):
        with suppress(WentAwayError):  # it has stopped, and its last server could not say so
            client.stop(immediate=now)
        say(f"stopping {status.name!r} (process {status.pid})")
        if not now:
            _say_if_lame(client)
        if pidfd is None:
            _wait_for_silence(client, deadline)
        elif not wait_for_exit(pidfd, deadline.left()):
            raise TimedOutError(f"timed out after {timeout:g} s; {goes_on}")
    return Exit.OK


def _say_if_lame(client: ControlClient) -> None:
    with suppress(NotRunningError, WentAwayError):  # it has stopped already
        status = client.status()
        if status.lame_seconds is not None:
            say(
                f"it serves on for {duration(status.lame_seconds)} before (--lame-duck); "
                f"`sengu stop {status.name}` once more ends that"
            )


def _main_process(client: ControlClient, status: Status) -> int:
    pid = client.process_id()
    # A server has bound the socket anew, and it is not the one that ends last.
    return status.pid if pid == status.server_pid else pid


def _hold(pid: int) -> int | None:
    """A pidfd; None when the process cannot be seen from here, as from within a container."""
    try:
        return os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        return None


def _wait_for_silence(client: ControlClient, deadline: Deadline) -> None:
    """Read events until there are no more, because nobody is there who could send them."""
    with suppress(NotRunningError), client.events(None, follow=True) as stream:
        while stream.read(deadline.left()) is not None:
            pass
