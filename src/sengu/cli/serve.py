"""`sengu serve`: check everything, then become the server of a Python web application.

The application itself is imported by the fork server, so that a deploy imports it afresh.
"""

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu.cli.become import launch_server
from sengu.cli.exits import Exit
from sengu.cli.options import Verb, given_texts, setting_option
from sengu.config.setting import parse_values
from sengu.config.settings import common
from sengu.config.settings import serve as known
from sengu.config.web import assemble_web

_EXAMPLES = (
    ("sengu serve myapp:app", "The object app of myapp.py, at http://127.0.0.1:8000."),
    (
        "sengu serve 'myapp:create_app()' -w 4 --listen 80 --listen unix:/run/app.sock",
        "What a factory makes; the quotes are for the shell.",
    ),
    (
        "sengu serve myapp:app --threads 8 --max-requests 10000",
        "Eight requests at a time in each worker, which is replaced now and then.",
    ),
    (
        "sengu serve mysite.wsgi:application --listen 8000 --trusted-proxy 10.0.0.0/8",
        "Django, behind a proxy in that network.",
    ),
    ("sengu serve myapp:app --reload", "Development: new code with each change of a file."),
)


def serve(target: str | None, **given: Any) -> int:
    """Serve a Python web application, WSGI or ASGI.

    TARGET is MODULE:NAME, or MODULE:FACTORY() for an application that is to be made. The module
    is found in the current directory, or in --dir. It is imported once, and the workers are
    forked from there. `sengu reload`, or HUP, imports it afresh: new workers come up beside the
    old ones and take over when they are ready. If the new code does not work, the old code goes
    on.

    A duration is in seconds, or as in 500ms, 2m, 1h; a size is in bytes, or as in 64k, 10m, 1g.
    """
    values = parse_values(known.SETTINGS, given_texts(known.SETTINGS, given))
    launch = assemble_web(values, target, os.environ)
    return launch_server(launch, in_background=values[common.DAEMONIZE])


def _complete_target(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Applications in the directory, for shells."""
    from sengu.cli.targets import find_targets  # no server needs it

    return [CompletionItem(name) for name in find_targets(ctx.params.get("dir") or ".", incomplete)]


command = Verb(
    "serve",
    callback=serve,
    help=serve.__doc__,
    params=[
        click.Argument(
            ["target"], required=False, metavar="TARGET", shell_complete=_complete_target
        ),
        *map(setting_option, known.SETTINGS),
    ],
    examples=_EXAMPLES,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
)
