"""`sengu configure`: have the configuration of worker classes read anew."""

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.text import printable
from sengu.cli.waiting import waiting_for
from sengu.cli.which import changes_instance
from sengu.control.api import ConfigureOutcome
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline

_DEFAULT_TIMEOUT_SECONDS = 120.0


@click.command(
    "configure",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.TIMED_OUT, Exit.INTERRUPTED),
    examples=(
        ("sengu configure", "The instance of this directory has changed its configuration file."),
        ("sengu configure jobs && sengu reload jobs", "And start workers with what needs that."),
    ),
)
@duration_option("--timeout", "Stop waiting after so long; 120 if left out.")
@changes_instance
def command(client: ControlClient, timeout: float | None) -> int:
    """Have the configuration of `sengu work` read anew, without a restart.

    Workers go on and find it as self.config, and their reload() is called. Settings in it that can
    change at once do; of others it is told what they need. If anything in it is wrong, the reason
    is told, and all goes on with the configuration that there was.
    """
    deadline = Deadline(_DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
    with waiting_for("the configuration is still being read; sengu events tells more", deadline):
        outcome = client.configure(deadline)
    click.echo(printable(_said(outcome)))
    return Exit.OK


def _said(outcome: ConfigureOutcome) -> str:
    changed = [*outcome.taken, *outcome.waiting, *outcome.overridden]
    if outcome.is_new:
        changed.insert(0, "workers have the new configuration")
    return "; ".join(changed) or "nothing has changed in the configuration"
