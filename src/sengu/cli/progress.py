"""What happens while we wait: lines for a log, a live line more for a person.

Only stderr is written to. Imported by the verbs that follow events.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from sengu.cli.text import is_terminal


class Progress(Protocol):
    """`tell` is for what has happened, `show` for how far it is."""

    def tell(self, line: str) -> None: ...

    def show(self, state: str) -> None: ...


class _Lines:
    """For scripts and logs: what has happened, a line for each."""

    def tell(self, line: str) -> None:
        click.echo(line, err=True)

    def show(self, state: str) -> None:
        pass


@contextmanager
def open_progress() -> Iterator[Progress]:
    """Progress in the way that suits whoever reads our stderr."""
    if not is_terminal():
        yield _Lines()
        return
    # Imported here, because it takes longer than all of a verb that shows no progress.
    from sengu.cli.live import live_progress

    with live_progress() as progress:
        yield progress
