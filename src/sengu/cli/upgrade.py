"""`sengu upgrade`: let an instance go on as the sengu that is installed now."""

from contextlib import ExitStack

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.progress import open_progress
from sengu.cli.text import plural, printable
from sengu.cli.waiting import waiting_for
from sengu.cli.which import changes_instance
from sengu.control.api import AdoptionStatus, Record
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline
from sengu.errors import SenguError


class Upgraded(msgspec.Struct, frozen=True):
    """The versions; the fields of an `upgraded` event."""

    version: str
    before: str


@click.command(
    "upgrade",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.TIMED_OUT, Exit.INTERRUPTED),
    examples=(
        ("pip install --upgrade sengu && sengu upgrade", "Install it, then go on as that one."),
        ("sengu upgrade web --timeout 1m", "Do not wait longer for the outcome."),
    ),
)
@duration_option("--timeout", "Stop waiting after so long; the upgrade goes on.")
@changes_instance
def command(client: ControlClient, timeout: float | None) -> int:
    """Let an instance go on as the sengu that is installed now, without a deploy.

    NAME is the name of the current directory if left out. The main process and the server are
    executed anew, with the same pid, workers and listeners. If the new version does not come up,
    the old one goes on, and the reason is told. What the workers run is replaced by
    `sengu reload`.
    """
    name = client.status().name
    deadline = Deadline(timeout)
    with waiting_for(f"the upgrade goes on; sengu events {name} shows it", deadline):
        upgraded = _await_outcome(client, client.upgrade().last_event, deadline)
        adopted = client.status().adopted
    click.echo(_describe(upgraded, adopted))
    return Exit.OK


def _await_outcome(client: ControlClient, since: int, deadline: Deadline) -> Upgraded:
    with ExitStack() as stack:
        progress = stack.enter_context(open_progress())
        stream = stack.enter_context(client.events(since, follow=True))
        progress.show("sengu is being upgraded")
        while (record := stream.read(deadline.left())) is not None:
            progress.tell(printable(record.text))
            if record.type == "upgraded":
                return msgspec.convert(record.fields, type=Upgraded)
            if record.type == "upgrade_failed":
                raise SenguError(_describe_failure(record))
    raise SenguError("the instance went away while being upgraded; see its log")


def _describe(upgraded: Upgraded, adopted: AdoptionStatus | None) -> str:
    if upgraded.version == upgraded.before:
        said = f"sengu {upgraded.version} goes on as installed now, the same version"
    else:
        said = f"sengu {upgraded.before} -> {upgraded.version}"
    return said if adopted is None else f"{said}, {plural(adopted.workers, 'worker')} lived on"


def _describe_failure(record: Record) -> str:
    problem = printable(str(record.fields.get("problem", "")))
    return f"sengu was not upgraded: {problem}; the old version goes on"
