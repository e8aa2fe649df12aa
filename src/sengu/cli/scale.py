"""`sengu scale`: change the number of workers."""

import re
from contextlib import ExitStack
from typing import NoReturn

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.progress import open_progress
from sengu.cli.text import plural, printable
from sengu.cli.waiting import waiting_for
from sengu.cli.which import changes_instance
from sengu.control.api import Status, WorkerState
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline
from sengu.errors import SenguError, UsageError

_DEFAULT_TIMEOUT_SECONDS = 60.0
_NUMBER = re.compile(r"([+-]?)([0-9]{1,6})")
_WANTED_STATES = (WorkerState.STARTING, WorkerState.READY, WorkerState.BACKOFF)


class Change(msgspec.Struct, frozen=True):
    """`sign` is 0 for a number of workers, 1 and -1 for so many more or less."""

    sign: int
    number: int


class _Scale(Verb):
    """Knows a number below 0 from an option, and tells the right order of words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # a shell that completes what is not all there yet
            self._check(ctx, args)
        return super().parse_args(ctx, args)

    def _check(self, ctx: click.Context, args: list[str]) -> None:
        given, rest, _ = self.make_parser(ctx).parse_args(list(args))
        found = [given.get("change"), given.get("instance"), *rest]
        words = [word for word in found if isinstance(word, str)]
        numbers = [word for word in words if _NUMBER.fullmatch(word)]
        others = [word for word in words if word not in numbers]
        options = [word.partition("=")[0] for word in others if word.startswith("-")]
        names = [word for word in others if not word.startswith("-")]
        right = " ".join(["sengu scale", *(numbers or ["4"])[:1], *names[:1]])
        if options:
            self._refuse_option(ctx, options[0], right)
        if numbers and words[0] != numbers[0]:
            raise UsageError(f"the number comes first; write {right}")

    def _refuse_option(self, ctx: click.Context, name: str, right: str) -> NoReturn:
        from difflib import get_close_matches  # slow to import, and needed for an error only

        known = [option for parameter in self.get_params(ctx) for option in parameter.opts]
        close = get_close_matches(name, [option for option in known if option.startswith("-")])
        if not close:
            raise UsageError(f"there is no option {name}; write {right}, or see sengu scale --help")
        raise click.NoSuchOption(name, possibilities=close, ctx=ctx)


def _parse(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Change:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UsageError(
            f"N is {text!r}, which is no number of workers; write 4, +1 or -1, as in "
            "sengu scale 4 [NAME]"
        )
    return Change({"": 0, "+": 1, "-": -1}[match[1]], int(match[2]))


@click.command(
    "scale",
    cls=_Scale,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.TIMED_OUT, Exit.INTERRUPTED),
    # -1 is a number and not an option.
    context_settings={"ignore_unknown_options": True},
    examples=(
        ("sengu scale 8", "Eight workers from now on."),
        ("sengu scale -1 web", "One less than now."),
    ),
)
@click.option("--no-wait", is_flag=True, help="Only ask for it.")
@duration_option("--timeout", "Stop waiting after so long; 60 if left out.")
@click.argument("change", metavar="N|+N|-N", callback=_parse)
@changes_instance
def command(client: ControlClient, change: Change, no_wait: bool, timeout: float | None) -> int:
    """Change the number of workers, and wait until so many are ready.

    N is a number, or how many more (+1) or less (-1). It holds until the instance ends.
    """
    status = client.status()
    wanted = _target(change, status.workers_wanted)
    deadline = Deadline(_DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
    client.scale(wanted)
    if not no_wait:
        goes_on = f"scaling to {plural(wanted, 'worker')} goes on; sengu status {status.name}"
        with waiting_for(goes_on, deadline):
            _await_workers(client, wanted, status.last_event, deadline)
    click.echo(f"{status.name} has {plural(wanted, 'worker')}, it had {status.workers_wanted}")
    return Exit.OK


def _target(change: Change, now: int) -> int:
    wanted = change.number if change.sign == 0 else now + change.sign * change.number
    if wanted < 0:
        raise UsageError(f"N is -{change.number}, but {_there_are(now)}; take fewer off")
    return wanted


def _there_are(workers: int) -> str:
    if workers == 0:
        return "there are none"
    return f"there {'is' if workers == 1 else 'are'} only {plural(workers, 'worker')}"


def _await_workers(client: ControlClient, wanted: int, since: int, deadline: Deadline) -> None:
    with ExitStack() as stack:
        progress = stack.enter_context(open_progress())
        stream = stack.enter_context(client.events(since, follow=True))
        while not _has_settled(status := client.status(), wanted):
            progress.show(f"{_ready(status)} of {plural(wanted, 'worker')} ready")
            record = stream.read(deadline.left())
            if record is None:
                raise SenguError("the instance went away while being scaled; see its log")
            progress.tell(printable(record.text))


def _ready(status: Status) -> int:
    return sum(worker.state is WorkerState.READY for worker in status.workers)


def _has_settled(status: Status, wanted: int) -> bool:
    """Exactly that many workers are wanted to run, and all of them are ready."""
    serving = [worker for worker in status.workers if worker.generation == status.generation]
    states = [worker.state for worker in serving if worker.state in _WANTED_STATES]
    return states == [WorkerState.READY] * wanted
