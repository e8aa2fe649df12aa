"""`sengu dump`: where all Python processes of an instance are."""

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import printable
from sengu.cli.which import looks_at_instance
from sengu.control.client import ControlClient


@click.command(
    "dump",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.TIMED_OUT, Exit.INTERRUPTED),
    examples=(
        ("sengu dump", "What is everybody doing?"),
        ("kill -CONT $(cat server.pid)", "The same, to the log only."),
    ),
)
@looks_at_instance
def command(client: ControlClient) -> int:
    """Show the stacks of all threads and asyncio tasks, and the memory, of all processes.

    Workers and fork servers of serve and work, the server, and the main process, write it to the
    log, and it is shown here. Nothing is stopped by it.
    """
    for process in client.dump().processes:
        for line in process.text.splitlines():
            click.echo(printable(line))
    return Exit.OK
