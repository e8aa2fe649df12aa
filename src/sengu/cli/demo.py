"""`sengu demo`: the way to `sengu.demo`, which is imported when it is called."""

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb


@click.command(
    "demo",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE),
    examples=(("sengu demo --svg deploys.svg", "With a picture of latency over time."),),
)
@click.option("--quick", is_flag=True, help="A shorter one.")
@click.option("--svg", metavar="FILE", help="Write the picture to this file.")
def command(quick: bool, svg: str | None) -> int:
    """Deploy a small web server again and again under load, and show what that costs.

    Fails when a request was lost.
    """
    from sengu.demo.main import run

    return run(quick=quick, svg=svg)
