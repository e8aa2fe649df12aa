"""`sengu ls`: all instances of this user, those that have died without cleaning up included."""

import os

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import duration, say, table
from sengu.config.instance import find_sockets, run_places
from sengu.control.api import Status, WorkerState
from sengu.control.client import ControlClient
from sengu.errors import NotRunningError, SenguError

_ANSWER_SECONDS = 2.0
_HEADINGS = ("NAME", "STATE", "GENERATION", "READY", "PID", "UPTIME", "CONTROL")


class Listing(msgspec.Struct, frozen=True):
    """One instance. `state` is its own word for it, `stale` (it is dead) or `no answer`."""

    name: str
    control: str
    state: str
    generation: int | None = None
    workers_ready: int | None = None
    workers_wanted: int | None = None
    pid: int | None = None
    uptime_seconds: float | None = None


@click.command(
    "ls",
    cls=Verb,
    exits=(Exit.OK, Exit.USAGE),
    examples=(("sengu ls --json | jq -r '.[].name'", "Their names."),),
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, a list of objects.")
def command(as_json: bool) -> int:
    """List all instances of this user that have a control socket in the usual place.

    One that is stale has died without removing its socket; the next start removes it.
    """
    sockets = find_sockets(run_places(os.environ))
    listings = [_ask(name, path) for name, path in sockets]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(listings), indent=2).decode())
    elif listings:
        click.echo(table(_HEADINGS, [_row(listing) for listing in listings]))
    else:
        say("no instance is running")
    return Exit.OK


def _ask(name: str, path: str) -> Listing:
    try:
        return _listing(name, path, ControlClient(path, _ANSWER_SECONDS).status())
    except NotRunningError:
        return Listing(name, path, "stale")
    except SenguError:  # it listens, but has no time for us or speaks another language
        return Listing(name, path, "no answer")


def _listing(name: str, path: str, status: Status) -> Listing:
    return Listing(
        name=name,
        control=path,
        state=status.state.value,
        generation=status.generation,
        workers_ready=sum(worker.state is WorkerState.READY for worker in status.workers),
        workers_wanted=status.workers_wanted,
        pid=status.pid,
        uptime_seconds=status.uptime_seconds,
    )


def _row(listing: Listing) -> tuple[str, ...]:
    ready = f"{listing.workers_ready}/{listing.workers_wanted}"
    return (
        listing.name,
        listing.state,
        "-" if listing.generation is None else str(listing.generation),
        "-" if listing.workers_ready is None else ready,
        "-" if listing.pid is None else str(listing.pid),
        "-" if listing.uptime_seconds is None else duration(listing.uptime_seconds),
        listing.control,
    )
