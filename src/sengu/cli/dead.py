"""`sengu dead`: the dead messages of a queue are listed, shown, sent back or thrown away."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from sengu.cli.brokers import Asking, broker_options, complete_queue
from sengu.cli.exits import Exit
from sengu.cli.options import Verb
from sengu.cli.progress import open_progress
from sengu.cli.text import plural, printable
from sengu.config.kinds import parse_positive_count
from sengu.consumers.library import check_library
from sengu.consumers.model.topology import dead_queue
from sengu.errors import SenguError, UsageError

if TYPE_CHECKING:
    from sengu.consumers.queues.dead import DeadMessage, Look, Refs

_LIMIT = 50
_EXITS = (Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED)
_SUFFIX = dead_queue("")


class _Verbs(click.Group):
    """Those about dead messages, in an order of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in _EXITS])


@click.group(
    "dead",
    cls=_Verbs,
    no_args_is_help=False,
    invoke_without_command=True,
    subcommand_metavar="VERB [ARGS]...",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, send back or throw away the dead messages of a queue.

    \b
      sengu dead list downloads
      sengu dead show downloads 1
      sengu dead retry downloads --all
      sengu dead drop downloads 2 3

    QUEUE is the consumer's. A message is named by its place in the list, or by its id; where an id
    looks like a number, write id:ID. What is only looked at stays where it is.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


class _Where(NamedTuple):
    """The options of all of them."""

    brokers: tuple[str, ...]
    management: str | None
    connect_timeout: float | None


def _verb(
    name: str, short: str, *examples: tuple[str, str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A verb about a queue. It gets its name, and the options as `where`."""

    def make(function: Callable[..., Any]) -> click.Command:
        def run(
            brokers: tuple[str, ...],
            management: str | None,
            connect_timeout: float | None,
            **given: Any,
        ) -> int:
            check_library()
            code: int = function(where=_Where(brokers, management, connect_timeout), **given)
            return code

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        argument = click.argument("queue", shell_complete=complete_queue)
        wrapped = argument(broker_options(run))
        kind = {"cls": Verb, "exits": _EXITS, "examples": examples}
        made: click.Command = command.command(name, short_help=short, **kind)(wrapped)
        return made

    return make


@_verb(
    "list",
    "List them, the oldest first.",
    ("sengu dead list downloads", "The oldest first."),
    ("sengu dead list downloads --limit 1000 --json | jq -r '.[].error' | sort | uniq -c", "Why."),
)
@click.option(
    "--limit",
    metavar="N",
    default=str(_LIMIT),
    callback=lambda _ctx, _parameter, text: parse_positive_count("--limit", text),
    help=f"So many at most.  [default: {_LIMIT}]",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, a list of objects.")
def list_command(queue: str, limit: int, as_json: bool, where: _Where) -> int:
    """List the dead messages of QUEUE: when they died, why they are dead, how often they
    have failed, what the last error was, and the start of the body."""
    from sengu.cli.dead_views import print_messages, row

    with _looking(queue, where) as (name, look):
        found = list(look.messages(limit))
    if as_json:
        rows = msgspec.json.encode([row(one, name) for one in found])
        click.echo(msgspec.json.format(rows, indent=2).decode())
    elif not look.count:
        click.echo(f"no message of {printable(name)} is dead")
    else:
        print_messages(found)
        if look.count > limit:
            click.echo(f"{look.count - limit} more; --limit {look.count} lists them too")
    _check_all(len(found), min(limit, look.count), "listed")
    return Exit.OK


@_verb(
    "show",
    "Show one with its stack, headers and body.",
    ("sengu dead show downloads 1", "The oldest, with its stack and body."),
)
@click.argument("message", metavar="N|ID")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with headers and stack.")
def show_command(queue: str, message: str, as_json: bool, where: _Where) -> int:
    """Show all of a dead message of QUEUE: why it is dead, the stack, its headers, its body."""
    from sengu.cli.dead_views import whole, whole_as_json
    from sengu.consumers.queues.dead import parse_refs

    refs = parse_refs([message])
    with _looking(queue, where) as (name, look):
        (found,) = _find(look, refs, name)
    if as_json:
        text = msgspec.json.encode(whole_as_json(found, name))
        click.echo(msgspec.json.format(text, indent=2).decode())
    else:
        click.echo(whole(found, name))
    return Exit.OK


@_verb(
    "retry",
    "Send some or all back to their queue.",
    ("sengu dead retry downloads 1 2", "The two oldest."),
    ("sengu dead retry downloads --all", "As many as there are now."),
)
@click.argument("messages", nargs=-1, metavar="[N|ID]...")
@click.option("--all", "is_all", is_flag=True, help="All that there are now.")
def retry_command(queue: str, messages: tuple[str, ...], is_all: bool, where: _Where) -> int:
    """Send dead messages back to QUEUE, to be tried as if they had never failed.

    Each is removed when the broker has confirmed its copy; whatever happens, none is lost.
    """
    refs = _parse(messages, is_all=is_all, verb="retry", queue=queue)
    from sengu.consumers.queues.dead import revived

    with _looking(queue, where) as (name, look):
        done = 0
        chosen = look.messages() if refs is None else iter(_find(look, refs, name))
        with open_progress() as progress:
            try:
                for one in chosen:
                    look.publish(name, one, revived(one.headers, *one.original(name)))
                    look.remove(one)
                    done += 1
                    progress.show(f"{plural(done, 'message')} sent back")
            except SenguError as problem:
                before = f" ({plural(done, 'message')} before were sent back)" if done else ""
                raise SenguError(f"{problem}{before}") from problem
        if refs is None:
            _check_all(done, look.count, "sent back")
    click.echo(f"{plural(done, 'message')} sent back to {printable(name)}")
    return Exit.OK


@_verb(
    "drop",
    "Throw some or all away.",
    ("sengu dead drop downloads 3", "Asks before."),
    ("sengu dead drop downloads --all --yes", "For scripts, which nobody can ask."),
)
@click.argument("messages", nargs=-1, metavar="[N|ID]...")
@click.option("--all", "is_all", is_flag=True, help="All that there are now.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def drop_command(
    queue: str, messages: tuple[str, ...], is_all: bool, yes: bool, where: _Where
) -> int:
    """Throw dead messages of QUEUE away, for good. At a terminal, you are asked before."""
    refs = _parse(messages, is_all=is_all, verb="drop", queue=queue)
    if not yes and not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked, as stdin is no terminal; add --yes")
    with _looking(queue, where) as (name, look):
        found = None if refs is None else _find(look, refs, name)
        count = look.count if found is None else len(found)
        if count and not yes and not _confirms(name, count, found):
            click.echo("nothing is dropped", err=True)
            return Exit.FAILED
        done = 0
        for one in look.messages() if found is None else found:
            look.remove(one)
            done += 1
        if found is None:
            _check_all(done, look.count, "dropped")
    click.echo(f"{plural(done, 'message')} dropped")
    return Exit.OK


def _confirms(queue: str, count: int, found: "Sequence[DeadMessage] | None") -> bool:
    from sengu.cli.dead_views import messages_table

    if found is not None:
        click.echo(messages_table(found), err=True)
    question = f"drop {plural(count, 'message')} of {printable(queue)} for good?"
    return click.confirm(question, err=True)


@contextmanager
def _looking(queue: str, where: _Where) -> "Iterator[tuple[str, Look]]":
    """The consumer's queue, and its dead messages. Raises SenguError."""
    asking = Asking(*where)
    from sengu.consumers.queues.dead import Look

    session = asking.session()
    try:
        dead = dead_queue(queue)
        if session.count(dead) is None:
            if queue.endswith(_SUFFIX) and session.count(queue) is not None:
                queue, dead = queue.removesuffix(_SUFFIX), queue
            elif session.count(queue) is None:
                raise asking.no_such_queue(queue, session.address)
            else:
                raise SenguError(
                    f"queue {queue!r} has no dead-letter queue {dead!r}; its consumer makes it: "
                    "sengu consume MODULE"
                )
        with Look(session.connection, session.address, dead) as look:
            yield queue, look
    finally:
        session.close()


def _check_all(done: int, count: int, how: str) -> None:
    """Raises SenguError if those were not all."""
    if done < count:
        raise SenguError(
            f"{done} of {plural(count, 'message')} {how}: the others did not come from the "
            "broker, as it is busy or somebody else has them; try again"
        )


def _parse(messages: Sequence[str], *, is_all: bool, verb: str, queue: str) -> "Refs | None":
    """None for all. Raises UsageError."""
    if is_all and messages:
        raise UsageError("give messages or --all, not both")
    if not is_all and not messages:
        raise UsageError(
            f"which messages? give their numbers or ids, as sengu dead list {queue} shows them, "
            f"or --all: sengu dead {verb} {queue} --all"
        )
    from sengu.consumers.queues.dead import parse_refs

    return None if is_all else parse_refs(messages)


def _find(look: "Look", refs: "Refs", queue: str) -> "list[DeadMessage]":
    """Those meant, at least one for each word. Raises SenguError."""
    found: list[DeadMessage] = []
    missing = refs.missing(found)
    most = look.count if refs.ids else min(max(refs.numbers, default=0), look.count)
    seen = 0
    for one in look.messages(most):
        seen = one.number
        if refs.match(one):
            found.append(one)
            missing = refs.missing(found)
            if not missing:
                break
    if missing:
        _check_all(seen, most, "looked at")
        there = f"there are {look.count}" if look.count else "there is none"
        raise SenguError(
            f"no dead message of {queue} is {missing[0]}; {there}, see sengu dead list {queue}"
        )
    return found
