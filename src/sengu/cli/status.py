"""`sengu status`: one instance, as a table or as JSON."""

import shlex
import time
from collections.abc import Sequence

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import duration, ordinal, plural, printable, table
from sengu.cli.which import looks_at_instance
from sengu.control.api import ServiceState, Status, WorkerState, WorkerStatus
from sengu.control.client import ControlClient
from sengu.model.observed import Outcome

_HEADINGS = ("SERVICE", "GENERATION", "SLOT", "PID", "STATE", "UPTIME", "RESTARTS")
_HEADINGS_OF_THE_WEB = ("REQUESTS", "BUSY", "CONNECTIONS", "DOING")


@click.command(
    "status",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING),
    examples=(
        ("sengu status", "The instance of this directory."),
        ("sengu status --ready", "Whether it takes requests, for a probe or HEALTHCHECK."),
        ("sengu status web --json | jq .generation", "For programs; docs/openapi.json has it all."),
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--ready", is_flag=True, help="One line; exit with 1 unless it takes requests.")
@looks_at_instance
def command(client: ControlClient, as_json: bool, ready: bool) -> int:
    """Show generations, workers, listeners and the last deploy of an instance.

    NAME is the name of the current directory if left out. With --ready an instance takes requests
    when a generation serves, a worker of any is ready, and it was not told to stop.
    """
    status = client.status()
    obstacle = _obstacle(status) if ready else ""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
    elif ready:
        click.echo(f"{status.name}: {obstacle or _readiness(status)}")
    else:
        click.echo("\n".join(_summary(status, time.time())))
        if status.workers:
            click.echo()
            click.echo(_workers(status))
    return Exit.FAILED if obstacle else Exit.OK


def _readiness(status: Status) -> str:
    ready = sum(worker.state is WorkerState.READY for worker in status.workers)
    return f"ready, generation {status.generation} with {plural(ready, 'ready worker')}"


def _obstacle(status: Status) -> str:
    """Why it does not take requests; empty when it does."""
    if status.state is ServiceState.STOPPING:
        return "not ready, it is stopping"
    if not status.generation:
        return "not ready, its first generation is starting"
    if all(worker.state is not WorkerState.READY for worker in status.workers):
        return "not ready, none of its workers is"
    return ""


def _workers(status: Status) -> str:
    """The table; with counts of requests when any worker tells of them."""
    counts = any(worker.requests is not None for worker in status.workers)
    headings = (*_HEADINGS, *(_HEADINGS_OF_THE_WEB if counts else ()), "NOTE")
    return table(headings, [_row(status.name, worker, counts) for worker in status.workers])


def _summary(status: Status, now: float) -> list[str]:
    """What is true of the whole, a line for each thing that there is."""
    serving = f" generation {status.generation}" if status.generation else ""
    wanted = f"{plural(status.workers_wanted, 'worker')} wanted"
    if status.resting_from is not None:
        wanted = f"resting, a reload brings {plural(status.resting_from, 'worker')} back"
    lines = [
        f"{status.name}: {status.state}{serving}, {wanted}, "
        f"up {duration(status.uptime_seconds)}, pid {status.pid}, sengu {status.version}",
        f"  command    {printable(shlex.join(status.command))}",
    ]
    if status.lame_seconds is not None:
        lines.append(
            f"  lame duck  it serves on for {duration(status.lame_seconds)}, then it stops"
        )
    if status.servers > 1:
        lines.append(f"  server     {_server(status, now)}")
    lines += [
        f"  listener   {printable(one.address)} ({printable(one.name)}, descriptor {one.fd})"
        for one in status.listeners
    ]
    lines += [
        f"  managed    {printable(one.address)}, asked for by {_generations(one.generations)}"
        for one in status.managed
    ]
    lines += [
        f"  self-bound {one.address}, {plural(one.sockets, 'socket')}, "
        f"{f'steered by {one.technique}' if one.technique else 'nobody listens yet'}"
        f"{f': {printable(one.remark)}' if one.remark else ''}"
        for one in status.passages
    ]
    if status.deploy is not None:
        deploy = status.deploy
        failed = f"; {plural(deploy.failures, 'failure')}" if deploy.failures else ""
        why = f", the last: {printable(deploy.last_failure)}" if deploy.last_failure else ""
        lines.append(
            f"  deploying  generation {deploy.generation}, asked for by "
            f"{printable(deploy.requested_by)}{failed}{why}"
        )
    if status.last_deploy is not None:
        last = status.last_deploy
        label = "deployed " if last.outcome is Outcome.SUCCEEDED else "last try "
        lines.append(
            f"  {label}  generation {last.generation} {last.outcome} "
            f"{duration(now - last.at)} ago: {printable(last.reason)}"
        )
    return lines


def _generations(numbers: Sequence[int]) -> str:
    """`generation 3`, `generations 3, 4`."""
    return f"generation{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _server(status: Status, now: float) -> str:
    """The process that answers, when it is not the first: the one before was killed or upgraded."""
    said = f"{status.server_pid}, the {ordinal(status.servers)}"
    found = status.adopted
    if found is None:
        return said
    parts = [f"{plural(found.workers, 'worker')} lived on"]
    parts += [f"{found.ended} had ended"] if found.ended else []
    parts += [f"{found.unwanted} killed as unwanted"] if found.unwanted else []
    parts += [f"{found.missing} asked for again"] if found.missing else []
    return f"{said} (took over {duration(now - found.at)} ago: {', '.join(parts)})"


def _row(service: str, worker: WorkerStatus, counts: bool) -> tuple[str, ...]:
    return (
        service,
        str(worker.generation),
        str(worker.slot),
        "-" if worker.pid is None else str(worker.pid),
        worker.state.value,
        "-" if worker.uptime_seconds is None else duration(worker.uptime_seconds),
        str(worker.restarts),
        *(_counts(worker) if counts else ()),
        _note(worker),
    )


def _counts(worker: WorkerStatus) -> tuple[str, ...]:
    numbers = (worker.requests, worker.busy, worker.connections)
    known = ["-" if number is None else str(number) for number in numbers]
    return (*known, printable(worker.doing) or ("idle" if worker.busy == 0 else "-"))


def _note(worker: WorkerStatus) -> str:
    notes = []
    if worker.state is WorkerState.CLOSED:
        notes.append("not replaced (--unrecoverable-exit-codes)")
    if worker.retry_in_seconds is not None:
        notes.append(f"again in {duration(worker.retry_in_seconds)}")
    if worker.drain_seconds is not None:
        notes.append(f"asked to stop in {duration(worker.drain_seconds)} at the latest")
    if worker.kill_in_seconds is not None:
        notes.append(f"killed in {duration(worker.kill_in_seconds)} if it is still there")
    if worker.status:
        notes.append(printable(worker.status))
    if worker.last_failure:
        notes.append(f"last failure: {printable(worker.last_failure)}")
    return "; ".join(notes)
