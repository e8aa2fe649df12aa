"""`sengu queues`: how full the consumers' queues are, and who consumes them."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec
from click.shell_completion import CompletionItem

from sengu.cli.brokers import Asking, broker_options, complete_queue
from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.text import printable, say, table
from sengu.config.kinds import parse_positive_duration
from sengu.errors import SenguError, UsageError

if TYPE_CHECKING:
    from sengu.consumers.queues.management import Told
    from sengu.consumers.queues.report import QueueReport, Session

_EVERY = "2"  # seconds
_HEADINGS = (
    "QUEUE", "READY", "UNACKED", "IN/S", "OUT/S", "RETRIES", "SUSPECTS", "DEAD", "CONSUMERS", ""
)  # fmt: skip

Show = Callable[[Sequence["QueueReport"], Sequence[str]], None]


def _parse_watch(
    _ctx: click.Context, _parameter: click.Parameter, text: str | None
) -> float | None:
    if text is None:
        return None
    try:
        return parse_positive_duration("--watch", text)
    except UsageError as problem:
        hint = f"; queues go before it, as in sengu queues {text} --watch"
        raise UsageError(f"{problem}{hint if not text[:1].isdigit() else ''}") from problem


def _complete_module(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from sengu.cli.targets import find_modules

    return [CompletionItem(name) for name in find_modules(".", incomplete)]


@click.command(
    "queues",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
    examples=(
        ("sengu queues", "All queues that have a consumer's siblings."),
        ("sengu queues downloads --watch", "One of them, and again every two seconds."),
        ("sengu queues --module myapp.jobs --json", "Those of a module, for a script."),
        (
            "sengu queues --json | jq '.[] | select(.dead > 0) | .queue'",
            "Those with dead messages.",
        ),
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_queue)
@click.option(
    "--module",
    metavar="MODULE",
    shell_complete=_complete_module,
    help="Queues of its consumers, or those of them that are named. It is imported.",
)
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=_EVERY,
    callback=_parse_watch,
    help=f"Show it again and again, every {_EVERY} seconds or so often.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, a list of objects; with --watch, one a line."
)
@broker_options
def command(  # noqa: PLR0913, PLR0917 (click passes each option by its name)
    names: tuple[str, ...],
    module: str | None,
    watch: float | None,
    as_json: bool,
    brokers: tuple[str, ...],
    management: str | None,
    connect_timeout: float | None,
) -> int:
    """Show for each queue: messages ready and unacknowledged, how many come and are done with in a
    second; how many wait to be tried again, are suspects, are dead; and its consumers, by service
    and generation.

    NAME is a queue. Without any, all that have a .dead or .retry queue beside them are shown, for
    which RabbitMQ's management plugin is needed. It also tells rates, what is unacknowledged, and
    whose consumers there are, which is up to five seconds old. What is not known is shown as -.
    """
    waiting = _of_module(module, names) if module is not None else None
    asking = Asking(brokers, management, connect_timeout)
    looker = _Looker(asking, tuple(waiting) if waiting is not None else names, waiting)
    try:
        with _shower(as_json=as_json, watches=watch is not None) as show:
            if watch is None:
                show(*looker.look())
            else:
                _watch(looker, show, watch)
    finally:
        looker.close()
    return Exit.OK


class _Looker:
    """Asks the broker, which may go and come back between two looks."""

    def __init__(
        self,
        asking: Asking,
        names: Sequence[str],
        waiting: Mapping[str, Sequence[str]] | None,
    ) -> None:
        """`waiting` has the retry queues of each, when a module tells them."""
        self._asking = asking
        self._names = names
        self._waiting = waiting
        self._session: Session | None = None

    def look(self) -> tuple[Sequence["QueueReport"], Sequence[str]]:
        """What there is, and notes on what there is not. Raises SenguError."""
        from sengu.consumers.queues.report import consumed, report, retry_queues

        if self._session is None:
            self._session = self._asking.session()
        told, silence = self._ask_management(self._session)
        names = self._names or (consumed(told.figures) if told is not None else ())
        if not names:
            raise SenguError(_nothing(silence))
        reports = []
        for name in names:
            waiting: Sequence[str] | None = None
            if self._waiting is not None:
                waiting = self._waiting[name]
            elif told is not None:
                waiting = retry_queues(name, told.figures)
            reports.append(report(name, self._session.count, told, waiting))
        if not self._session.connection.is_open:
            raise SenguError(reports[-1].problem or "the broker is gone")
        if self._waiting is None:
            self._complain(reports)
        problems = [one.problem for one in reports if one.problem]
        return reports, [*([f"not all is known: {silence}"] if silence else []), *problems]

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _ask_management(self, session: "Session") -> tuple["Told | None", str]:
        """What it tells, or why it does not."""
        from sengu.consumers.queues.management import ask

        try:
            return ask(self._asking.place(session.address), session.address.vhost), ""
        except SenguError as problem:
            if self._asking.insists:
                raise
            return None, str(problem)

    def _complain(self, reports: Sequence["QueueReport"]) -> None:
        """Raises SenguError: who names a queue wants one that is there."""
        assert self._session is not None
        for one in reports:
            if one.ready is None and one.problem and one.problem.startswith("there is no"):
                raise self._asking.no_such_queue(one.queue, self._session.address)


def _nothing(silence: str) -> str:
    if silence:
        return f"name queues, or give --module MODULE: {silence}"
    return (
        "there is no queue with a .dead or .retry queue beside it; consumers make them: sengu "
        "consume MODULE; or name queues"
    )


def _of_module(module: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Its queues, with the retry queues of each. Raises SenguError."""
    from sengu.consumers.model.topology import retry_queue
    from sengu.consumers.modules import consumers_of, select
    from sengu.work.target import import_module

    sys.path.insert(0, os.getcwd())
    with contextlib.redirect_stdout(sys.stderr):  # what it says is not what was asked for
        found = select(consumers_of(import_module(module)), names)
    return {
        one.spec.queue: [
            retry_queue(one.spec.queue, seconds)
            for seconds in sorted(set(one.spec.retrying.delays))
        ]
        for one in found
    }


def _watch(looker: _Looker, show: Show, seconds: float) -> None:
    """Until it is interrupted. The first look has to succeed. Raises SenguError."""
    show(*looker.look())
    while True:
        time.sleep(seconds)
        try:
            show(*looker.look())
        except SenguError as problem:  # it may come back
            looker.close()
            show((), [str(problem)])


@contextmanager
def _shower(*, as_json: bool, watches: bool) -> Iterator[Show]:
    """In the way that suits who reads. Outside of a table that is kept current, the same notes are
    not said again and again."""
    said: list[str] = []

    def say_news(notes: Sequence[str]) -> None:
        for note in notes:
            if note not in said:
                say(printable(note))
        said[:] = notes

    def show_json(reports: Sequence["QueueReport"], notes: Sequence[str]) -> None:
        say_news(notes)
        text = msgspec.json.encode(reports)
        click.echo((text if watches else msgspec.json.format(text, indent=2)).decode())

    def show_table(reports: Sequence["QueueReport"], notes: Sequence[str]) -> None:
        say_news(notes)
        click.echo(table(_HEADINGS, _rows(reports)))

    if as_json:
        yield show_json
    elif watches and sys.stdout.isatty():
        from sengu.cli.refreshed import refreshed_table  # slow to import

        with refreshed_table() as shown:
            yield lambda reports, notes: shown.show(_HEADINGS, _rows(reports), notes)
    else:
        yield show_table


def _rows(reports: Sequence["QueueReport"]) -> list[tuple[str, ...]]:
    return [
        (
            printable(one.queue),
            *map(_number, (one.ready, one.unacked)),
            *map(_rate, (one.rate_in, one.rate_out)),
            *map(_number, (one.retries, one.suspects, one.dead, one.consumers)),
            _generations(one),
        )
        for one in reports
    ]


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _rate(value: float | None) -> str:
    """With a digit after the point where that is much."""
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def _generations(report: "QueueReport") -> str:
    """`jobs generation 3: 4, generation 2: 1, others: 1`."""
    if not report.consumers or report.generations is None:
        return ""
    words, service = [], None
    for one in report.generations:
        name = "" if one.service == service else f"{printable(one.service)} "
        words.append(f"{name}generation {one.generation}: {one.consumers}")
        service = one.service
    others = report.consumers - sum(one.consumers for one in report.generations)
    if others > 0:
        words.append(f"others: {others}")
    return ", ".join(words)
