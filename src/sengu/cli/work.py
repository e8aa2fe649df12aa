"""`sengu work`: check everything, then become the server of a worker class.

The class itself is imported by the fork server, so that a deploy imports it afresh.
"""

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu.cli.become import launch_server
from sengu.cli.configured import parse_configured
from sengu.cli.exits import Exit
from sengu.cli.options import Verb, given_texts, setting_option
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.config.work import Script, assemble_work
from sengu.model.work import WorkKind

_EXAMPLES = (
    ("sengu work myapp.jobs:Consumer -w 4", "Four processes, each with a Consumer of its own."),
    (
        "sengu work jobs.py:Consumer --config jobs.toml",
        "A class of a script, and what it finds as self.config.",
    ),
    (
        "sengu work myapp.jobs:Consumer --kind async -w 2",
        "Two processes with an event loop; `async def run`.",
    ),
    (
        "sengu work jobs:Consumer -w 4 --daemonize --log-file jobs.log --pid-file jobs.pid",
        "In the background.",
    ),
)


def work(target: str | None, **given: Any) -> int:
    """Run a worker class, a subclass of sengu.Worker, and keep it running.

    TARGET is MODULE:CLASS or SCRIPT.py:CLASS. The module is found in the current directory, or in
    --dir. It is imported once, and the workers are forked from there. `sengu reload`, or HUP,
    imports it afresh: new workers start beside the old ones, which finish what they have in hand.

    A duration is in seconds, or as in 500ms, 2m, 1h; a size is in bytes, or as in 64k, 10m, 1g.
    """
    values, script = parse_configured(given_texts(known.SETTINGS, given), Script())
    if values[known.KIND] == WorkKind.EMBEDDED:
        from sengu.cli.embedded import run_embedded  # nobody else needs it

        return run_embedded(values, target, os.environ, script)
    launch = assemble_work(values, target, os.environ, script)
    return launch_server(launch, in_background=values[common.DAEMONIZE])


def _complete_target(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Worker classes in the directory, for shells; files, where a path is begun."""
    from sengu.cli.targets import find_classes  # no worker needs it

    if "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in find_classes(ctx.params.get("dir") or ".", incomplete)]


command = Verb(
    "work",
    callback=work,
    help=work.__doc__,
    params=[
        click.Argument(
            ["target"], required=False, metavar="TARGET", shell_complete=_complete_target
        ),
        *map(setting_option, known.SETTINGS),
    ],
    examples=_EXAMPLES,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
)
