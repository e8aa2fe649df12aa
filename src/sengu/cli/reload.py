"""`sengu reload`: deploy a new generation, and say how it went."""

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.which import changes_instance
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline
from sengu.errors import UsageError


@click.command(
    "reload",
    cls=Verb,
    exits=tuple(Exit),
    examples=(
        ("sengu reload", "Deploy the instance of this directory, and wait for the outcome."),
        ("sengu reload web --drained", "Wait, too, until the old workers are gone."),
        ("sengu reload web && ./announce", "Announce it only when it serves."),
        ("sengu reload jobs --now", "Do not wait for what the old workers are at."),
    ),
)
@click.option(
    "--now", is_flag=True, help="Once the new generation serves, do not let old workers finish."
)
@click.option("--no-wait", is_flag=True, help="Only ask for it.")
@click.option("--drained", is_flag=True, help="Wait until the old generations are gone, too.")
@duration_option("--timeout", "Stop waiting after so long; the deploy goes on.")
@changes_instance
def command(
    client: ControlClient, now: bool, no_wait: bool, drained: bool, timeout: float | None
) -> int:
    """Deploy a new generation of an instance, and wait for the outcome.

    NAME is the name of the current directory if left out. The old generation serves until the
    new one is ready. If that fails, it goes on serving, and the reason is told with the last
    lines that the new worker wrote to stderr.
    """
    if not no_wait:
        from sengu.cli.deploys import Order, deploy

        return deploy(client, Order(drained, now), Deadline(timeout))
    if drained or timeout is not None:
        raise UsageError("--no-wait waits for nothing; leave out --drained and --timeout")
    click.echo(f"generation {client.reload(now).generation} is being deployed")
    return Exit.OK
