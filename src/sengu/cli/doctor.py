"""`sengu doctor`: what this machine and this user allow, as a table or as JSON."""

import sys

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import printable, table
from sengu.doctor.report import MEANINGS, Asked, Purpose, Report, Row
from sengu.model.container import ENGINES

_HEADINGS = ("CHECK", "STATE", "NEEDED", "FOUND", "WHAT TO DO")
_DEFAULT = tuple(purpose.value for purpose in Asked().purposes)


@click.command(
    "doctor",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE),
    examples=(
        ("sengu doctor", "Will sengu serve, sengu work and sengu start work here?"),
        ("sengu doctor --for self-bound --engine docker", "What about containers, by Docker?"),
        ("sengu doctor --for reuseport --backlog 8192", "May so many connections wait?"),
        (
            "setpriv --reuid www-data --clear-groups sengu doctor",
            "As the user that the service will have: much depends on it.",
        ),
        ("sengu doctor --json | jq -r .self_bound", "For programs; docs/doctor.md has the fields."),
    ),
)
@click.option(
    "--for",
    "purposes",
    metavar="PURPOSE",
    type=click.Choice([purpose.value for purpose in Purpose]),
    multiple=True,
    default=_DEFAULT,
    help="What is to work: serve, work, start, reuseport, self-bound or container; may be "
    "repeated.  [default: serve, work and start]",
)
@click.option(
    "--engine",
    metavar="ENGINE",
    type=click.Choice(ENGINES),
    help="The container engine that is to work, podman or docker; it implies --for container.  "
    "[default: one of them]",
)
@click.option(
    "--backlog",
    metavar="N",
    type=click.IntRange(min=1),
    help="The backlog that is to be had; it is needed then.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(
    purposes: tuple[str, ...], engine: str | None, backlog: int | None, as_json: bool
) -> int:
    """Show what works on this machine for this user, what does not, and what to do about it.

    Things are tried where they can be, on sockets and processes of its own; nothing is changed.
    The exit code says whether all that is needed works. The last line says how connections would
    be kept when programs that bind by themselves (--self-bound) are replaced.
    """
    from sengu.doctor.examine import examine
    from sengu.doctor.here import Here

    wanted = [*map(Purpose, purposes), *([] if engine is None else [Purpose.CONTAINER])]
    report = examine(Here(), Asked(tuple(wanted), backlog, engine))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        _show(report)
    return Exit.OK if report.fit else Exit.FAILED


def _show(report: Report) -> None:
    rows = [_cells(row) for row in report.checks]
    if sys.stdout.isatty():
        # Imported here, as in `progress`: it takes longer than the rest of the command line.
        from sengu.cli.wide import print_table

        print_table(_HEADINGS, rows)
    else:
        click.echo(table(_HEADINGS, rows))
    click.echo()
    click.echo(_verdict(report))
    technique = report.self_bound
    click.echo(f"self-bound programs: {technique.value}, {MEANINGS[technique]}")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.name, row.state.value, _need(row), printable(row.fact), printable(row.advice))


def _need(row: Row) -> str:
    if not row.needed_for:
        return "-"
    others = [name for name in row.alternatives if name != row.name]
    return f"or {' or '.join(others)}" if others else "yes"


def _verdict(report: Report) -> str:
    asked = ", ".join(purpose.value for purpose in report.asked_for)
    if report.fit:
        return f"nothing is missing for {asked}"
    return f"missing for {asked}: {', '.join(' or '.join(need) for need in report.missing)}"
