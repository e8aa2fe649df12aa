"""A table that is kept current, for a person at a terminal. Needs rich.

Imported by `cli.queues` for --watch, when stdout is a terminal.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


class RefreshedTable:
    """Shows one table in the place of the last."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> None:
        """All columns but the last have numbers, and the first names. Notes are below."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        last = len(headings) - 1
        for number, heading in enumerate(headings):
            is_text = number in (0, last)
            table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        below = [Text(note, style="yellow") for note in notes]
        self._live.update(Group(table, *below), refresh=True)


@contextmanager
def refreshed_table() -> Iterator[RefreshedTable]:
    with Live(console=Console(), auto_refresh=False) as live:
        yield RefreshedTable(live)
