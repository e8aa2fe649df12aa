"""Which instance a verb is about: by its control socket, its name, or the directory.

A verb that only looks may also take the only instance that runs; one that changes something must
not, or `cd app && sengu stop` would stop whatever else runs here. Imported by the verbs that talk
to an instance.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu.cli.text import say
from sengu.config.instance import check_name, default_name, find_sockets, run_places
from sengu.control.client import ControlClient
from sengu.errors import NotRunningError, UsageError
from sengu.listeners.bind import is_alive


def changes_instance(verb: Callable[..., int]) -> Callable[..., int]:
    """NAME, --name and --control say which instance is meant; the verb gets its `client`."""
    return _on_instance(verb, guess=False)


def looks_at_instance(verb: Callable[..., int]) -> Callable[..., int]:
    """The same, and without any of these it may be the only instance that runs."""
    return _on_instance(verb, guess=True)


def _on_instance(verb: Callable[..., int], *, guess: bool) -> Callable[..., int]:
    @functools.wraps(verb)
    def with_client(
        *, instance: str | None, name: str | None, control: str | None, **others: Any
    ) -> int:
        # --name is spelled as with `sengu start`; whoever gives both may mean one.
        if instance is not None and name not in (None, instance):
            raise UsageError(f"NAME is {instance!r} and --name is {name!r}; give one of them")
        return verb(client=choose(instance or name, control, guess=guess), **others)

    for decorate in (
        click.option("--control", metavar="PATH", type=click.Path(), help="Its control socket."),
        click.option(
            "--name", metavar="NAME", shell_complete=complete_names, help="The same as NAME."
        ),
        click.argument("instance", metavar="[NAME]", required=False, shell_complete=complete_names),
    ):
        with_client = decorate(with_client)
    return with_client


def choose(name: str | None, control: str | None, *, guess: bool) -> ControlClient:
    """The client of the instance that is meant. Raises NotRunningError, UsageError."""
    if control is not None:
        if name is not None:
            raise UsageError("give NAME or --control PATH, not both: each of them says which")
        return ControlClient(os.path.abspath(control))
    sockets = dict(find_sockets(run_places(os.environ)))
    if name is not None:
        return _by_name(check_name(name), sockets)
    running = {name: path for name, path in sockets.items() if is_alive(path)}
    usual = default_name(os.getcwd())
    if usual in running:
        return ControlClient(running[usual])
    if guess and len(running) == 1:
        ((name, path),) = running.items()
        say(f"using {name!r}, the only instance that runs")
        return ControlClient(path)
    if not running:
        raise NotRunningError("no instance is running; start one: sengu start -- COMMAND")
    raise NotRunningError(
        f"no instance is named {usual!r} after this directory; name one of those that run: "
        + ", ".join(running)
    )


def _by_name(name: str, sockets: dict[str, str]) -> ControlClient:
    path = sockets.get(name)
    if path is not None and is_alive(path):
        return ControlClient(path)
    if path is not None:
        raise NotRunningError(
            f"instance {name!r} has died: nobody listens on {path} any more; start it again"
        )
    running = ", ".join(name for name, path in sockets.items() if is_alive(path))
    raise NotRunningError(
        f"there is no instance {name!r}; "
        + (f"those that run: {running}" if running else "none is running")
    )


def complete_names(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of instances, for shells."""
    names = (name for name, _ in find_sockets(run_places(os.environ)))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
