"""Progress for a person at a terminal: past events scroll by above a line that is kept current.

Needs rich. Imported by `cli.progress`, when stderr is a terminal.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text


class _Live:
    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status

    def tell(self, line: str) -> None:
        self._console.print(Text(line, style="dim"))

    def show(self, state: str) -> None:
        self._status.update(Text(state))


@contextmanager
def live_progress() -> Iterator[_Live]:
    console = Console(stderr=True)
    with console.status(Text("asking")) as status:
        yield _Live(console, status)
