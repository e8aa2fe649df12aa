"""`sengu demo`: the way to `sengu.demo`, which is imported when it is called."""

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb


@click.command(
    "demo",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
    examples=(
        ("sengu demo", "Takes some 20 seconds, and leaves a picture in sengu-demo.svg."),
        ("sengu demo --quick --svg /tmp/deploys.svg", "A shorter one, and a picture elsewhere."),
    ),
)
@click.option("--quick", is_flag=True, help="Without pauses between the steps.")
@click.option(
    "--svg",
    metavar="FILE",
    default="sengu-demo.svg",
    show_default=True,
    help="Where to draw latency over time.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Workers of the server.",
)
@click.option(
    "--clients",
    metavar="N",
    type=click.IntRange(1, 200),
    default=20,
    show_default=True,
    help="Clients at the same time.",
)
def command(quick: bool, svg: str, workers: int, clients: int) -> int:
    """Deploy a small web server again and again under load, and show what that costs.

    A real server is started by `sengu start`, and asked by many clients at once. Meanwhile it is
    deployed five times, deployed in a version that is broken, and one of its workers is killed.
    Fails when a request was lost, or when anything else went otherwise than it should.
    """
    from sengu.demo.main import run
    from sengu.demo.story import Cast

    return run(quick=quick, svg=svg, cast=Cast(workers, clients))
