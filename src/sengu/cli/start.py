"""`sengu start`: check everything, then become the server.

The server is executed in this very process, so it has our pid, and nothing of the command line's
libraries stays in memory. Also `--restart` and `--stop` of Server::Starter, which act on an
instance that runs.
"""

import contextlib
import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu import __version__
from sengu.cli.become import launch_server
from sengu.cli.exits import Exit
from sengu.cli.options import GroupedOption, Verb, given_texts, setting_option
from sengu.config.assemble import assemble
from sengu.config.kinds import parse_positive_duration
from sengu.config.setting import Values, parse_values
from sengu.config.settings import common
from sengu.config.settings import start as known
from sengu.errors import UsageError

_ACTIONS = "Acting on an instance that runs, as start_server does"
_EXAMPLES = (
    (
        "sengu start --port 8080 --workers 4 -- ./my-server --flag",
        "Four workers share one listener, which they find at descriptor 3.",
    ),
    (
        "sengu start --port 8080 --ready http:/healthz -- ./my-server",
        "A new worker gets its turn when it answers GET /healthz.",
    ),
    (
        "sengu start --self-bound 8080 --container web --pull",
        "A container whose program binds the port by itself, pulled before each deploy.",
    ),
    (
        "sengu start --port 80 --daemonize --log-file /var/log/app.log -- ./my-server",
        "In the background; fails if the first generation does.",
    ),
)
_DEFAULT_RESTART_SECONDS = 600.0


def start(command: tuple[str, ...], restart: bool, stop: bool, **given: Any) -> int:
    """Run COMMAND with its listeners, and keep it running.

    COMMAND is any program; with --container there need be none. It finds its listeners as systemd
    passes them (LISTEN_FDS) and as Server::Starter does (SERVER_STARTER_PORT). When it dies it is
    started again. `sengu reload`, or HUP, replaces it: new workers come up beside the old ones and
    take over when they are ready. All options of start_server mean the same here.

    A duration is in seconds, or as in 500ms, 2m, 1h.
    """
    timeout = given.pop("timeout")
    values = parse_values(known.SETTINGS, given_texts(known.SETTINGS, given))
    if restart and stop:
        raise UsageError("--restart and --stop contradict each other; give one of them")
    if restart or stop:
        seconds = parse_positive_duration("--timeout", timeout) if timeout else None
        return _act(values, restart, seconds)
    if timeout is not None:
        raise UsageError("--timeout is for --restart and --stop; did you mean --ready-timeout?")
    launch = assemble(values, command, os.environ)
    return launch_server(launch, in_background=values[common.DAEMONIZE])


def _act(values: Values, restart: bool, timeout_seconds: float | None) -> int:
    from sengu.cli import pidfile  # the client's libraries are not needed to start a server

    place = pidfile.Place(values[common.PID_FILE], values[common.NAME], values[common.CONTROL])
    if not restart:
        return pidfile.stop(place, timeout_seconds)
    return pidfile.restart(
        place, values[common.STATUS_FILE], timeout_seconds or _DEFAULT_RESTART_SECONDS
    )


def _complete_command(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Programs of PATH, for shells; files, where a path is begun or the program is there."""
    if ctx.params.get("command") or not incomplete or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    found = set[str]()
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):  # PATH may name what is not there
            found.update(name for name in os.listdir(folder) if name.startswith(incomplete))
    return [CompletionItem(name) for name in sorted(found)]


command = Verb(
    "start",
    callback=start,
    help=start.__doc__,
    params=[
        click.Argument(
            ["command"],
            nargs=-1,
            type=click.UNPROCESSED,
            metavar="[--] COMMAND [ARGS]...",
            shell_complete=_complete_command,
        ),
        *map(setting_option, known.SETTINGS),
        GroupedOption(
            ["--restart"],
            is_flag=True,
            group=_ACTIONS,
            help="Deploy, and wait until only the new generation is left. Needs --pid-file and "
            "--status-file.",
        ),
        GroupedOption(
            ["--stop"],
            is_flag=True,
            group=_ACTIONS,
            help="Stop, and wait until it is gone. Needs --pid-file.",
        ),
        GroupedOption(
            ["--timeout"],
            metavar="SECONDS",
            group=_ACTIONS,
            help="How long to wait: 600 for --restart, for ever for --stop.",
        ),
    ],
    # From the first word that is no option on, everything is the command's own.
    context_settings={"allow_interspersed_args": False},
    examples=_EXAMPLES,
    exits=tuple(Exit),
)
click.version_option(__version__, message="sengu %(version)s")(command)
