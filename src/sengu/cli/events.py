"""`sengu events`: what has happened, and what happens."""

import re
import time
from contextlib import suppress

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import printable, say
from sengu.cli.which import looks_at_instance
from sengu.control.api import Record, encode_record
from sengu.control.client import ControlClient
from sengu.errors import UsageError


def _parse_id(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None or re.fullmatch(r"[0-9]{1,18}", text):
        return None if text is None else int(text)
    raise UsageError(f"--since {text!r} is not the number of an event; sengu events shows them")


@click.command(
    "events",
    cls=Verb,
    examples=(
        ("sengu events", "All that is remembered, which is the last thousand events or so."),
        ("sengu events web --follow --json", "New ones as they happen, a JSON object a line."),
        ("sengu events --since 41 --follow", "Those after number 41, and new ones."),
    ),
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event.")
@click.option(
    "--since",
    metavar="ID",
    callback=_parse_id,
    help="Only events after this one. With --follow and without this: only new ones.",
)
@looks_at_instance
def command(client: ControlClient, follow: bool, as_json: bool, since: int | None) -> int:
    """Show what has happened to an instance: starts, exits, deploys and why.

    NAME is the name of the current directory if left out.
    """
    if since is None and not follow:
        since = 0
    with suppress(KeyboardInterrupt), client.events(since, follow) as stream:
        for record in stream:
            click.echo(encode_record(record).decode() if as_json else _line(record))
        if follow:
            say("the instance is gone")
    return Exit.OK


def _line(record: Record) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
    return f"{record.id:5}  {moment}  {printable(record.text)}"
