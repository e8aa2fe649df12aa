"""A table for a person at a terminal: cells are folded to fit its width. Needs rich.

Imported by verbs whose cells are sentences, when stdout is a terminal.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sengu.cli.text import colour_of


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The last two columns may be folded, the others are kept whole; states have their colour."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        may_fold = number >= len(headings) - 2
        table.add_column(heading, no_wrap=not may_fold, overflow="fold", ratio=may_fold or None)
    for row in rows:
        table.add_row(*(Text(cell, style=colour_of(cell) or "") for cell in row))
    Console().print(table)
