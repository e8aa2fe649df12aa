"""`sengu consume`: check everything, then become the server of a module's queue consumers.

The module itself is imported by the fork server, so that a deploy imports it afresh.
"""

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu.cli.become import launch_server
from sengu.cli.configured import parse_configured
from sengu.cli.exits import Exit
from sengu.cli.options import Verb, given_texts, setting_option
from sengu.config.consume import SETTINGS as CONFIGURABLE
from sengu.config.consume import assemble_consume
from sengu.config.settings import common
from sengu.config.settings import consume as known
from sengu.config.work import Script
from sengu.consumers.library import check_library

_EXAMPLES = (
    ("sengu consume myapp.jobs -w 4", "All consumers of the module, in each of four processes."),
    (
        "sengu consume jobs.py --broker amqp://me:secret@rabbit.example/shop",
        "Those of a script; the broker of that host, its virtual host shop.",
    ),
    ("sengu consume myapp.jobs --only downloads", "One of them, by its name or its queue."),
    (
        "sengu consume myapp.jobs -w 3 --split",
        "Three processes with one of three consumers each.",
    ),
)


def consume(target: str | None, **given: Any) -> int:
    """Run the queue consumers of a module, on RabbitMQ, and keep them running.

    TARGET is a MODULE or a SCRIPT.py with functions that are marked by @sengu.consumers.consumer,
    or subclasses of sengu.consumers.Consumer. The module is found in the current directory, or in
    --dir. Queues are made if they are not there. `sengu reload`, or HUP, imports it afresh: when
    new workers are subscribed, old ones get no more messages, and finish what they have in hand.

    A duration is in seconds, or as in 500ms, 2m, 1h; a size is in bytes, or as in 64k, 10m, 1g.
    """
    texts = given_texts(known.SETTINGS, given)
    values, script = parse_configured(texts, Script(), known.SETTINGS, CONFIGURABLE)
    launch = assemble_consume(values, target, os.environ, script)
    check_library()  # by then it is in this terminal that one is told
    return launch_server(launch, in_background=values[common.DAEMONIZE])


def _complete_target(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Modules in the directory, for shells."""
    from sengu.cli.targets import find_modules  # no server needs it

    return [CompletionItem(name) for name in find_modules(ctx.params.get("dir") or ".", incomplete)]


command = Verb(
    "consume",
    callback=consume,
    help=consume.__doc__,
    params=[
        click.Argument(
            ["target"], required=False, metavar="TARGET", shell_complete=_complete_target
        ),
        *map(setting_option, known.SETTINGS),
    ],
    examples=_EXAMPLES,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
)
