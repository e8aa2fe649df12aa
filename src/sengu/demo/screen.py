"""The screen: what happened scrolls by, above a panel that is kept current.

Where stdout is no terminal there is no panel, and the rest are plain lines. The only module that
writes while the demonstration runs. Used by `story` and `main`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sengu.cli.text import printable
from sengu.demo.chart import PALETTE, show_seconds
from sengu.demo.ledger import Ledger, Worker
from sengu.demo.verdict import measure
from sengu.posix.loop import Loop

_FRAME_SECONDS = 0.1
_BAR_WIDTH = 48
_SIGNS = {"starting": "○", "ready": "●", "stopping": "◌"}


class Screen:
    """Shows what is in the ledger, and what it is told."""

    def __init__(self, console: Console, loop: Loop, ledger: Ledger, steps: int) -> None:
        self._console = console
        self._loop = loop
        self._ledger = ledger
        self._steps = steps
        self._step = 0
        self._began = loop.now()
        self._live: Live | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """The panel is there in the block, and gone after it."""
        if not self._console.is_terminal:
            yield
            return
        # Drawn by our own loop: a thread of rich's would draw in the middle of a fork.
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            self._draw()
            try:
                yield
            finally:
                self._live = None

    def begin_step(self, words: str) -> None:
        """A command is about to be run, or the like; one of the steps that were announced."""
        self._step += 1
        self._print(Text(words, style="bold"))

    def tell(self, words: str, style: str = "") -> None:
        """What came of it."""
        self._print(Text(printable(words), style=style))

    def tell_answers(self) -> None:
        """For those without a panel: who answers now, and how quickly."""
        if not self._console.is_terminal:
            self._print(self._pulse() + Text("; ") + self._shares())

    def _print(self, text: Text) -> None:
        stamp = Text(f"{self._loop.now() - self._began:5.1f} s  ", style="dim")
        if not self._console.is_terminal:
            self._console.print(stamp + text, soft_wrap=True)
            return
        line = Table.grid()
        line.add_column(width=len(stamp))
        line.add_column(overflow="fold")
        line.add_row(stamp, text)
        self._console.print(line)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
            self._loop.call_at(self._loop.now() + _FRAME_SECONDS, self._draw)

    def _panel(self) -> Group:
        lines = [
            Text(),
            self._progress(),
            self._row("clients", self._pulse()),
            self._row("answers", self._bar()),
            self._row("", self._shares()),
            self._row("workers", self._crew()),
            *(
                self._row("events" if first else "", Text(printable(text), style="dim"))
                for first, text in _flag_first(self._ledger.events)
            ),
        ]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _row(self, heading: str, text: Text) -> Text:
        return Text(f"{heading:>8}  ", style="dim") + text

    def _progress(self) -> Text:
        done = _BAR_WIDTH * self._step // self._steps
        elapsed = f"  step {self._step} of {self._steps}, {self._loop.now() - self._began:.0f} s"
        return self._row(
            "", Text("━" * done, "bold") + Text("─" * (_BAR_WIDTH - done), "dim") + Text(elapsed)
        )

    def _pulse(self) -> Text:
        requests = self._ledger.recent(self._loop.now())
        latency = measure(requests)
        failed = Text(f"{self._ledger.failed} failed", "bold red" if self._ledger.failed else "")
        slowest = latency.slowest.seconds if latency.slowest else float("nan")
        return (
            Text(f"{len(self._ledger.requests):,} requests, {len(requests)} a second, ")
            + failed
            + Text(f"; median {show_seconds(latency.median)}, slowest {show_seconds(slowest)}")
        )

    def _bar(self) -> Text:
        """The answers of the last second, each version's share in its colour."""
        counts = self._ledger.answering(self._loop.now())
        total = sum(counts.values())
        bar, end = Text(), 0
        seen = 0
        for index, version in enumerate(self._ledger.versions):
            seen += counts[version]
            begin, end = end, round(_BAR_WIDTH * seen / total) if total else 0
            bar.append("█" * (end - begin), colour(index))
        return bar

    def _shares(self) -> Text:
        counts = self._ledger.answering(self._loop.now())
        total = sum(counts.values())
        shares = [
            Text(f"{version} {100 * counts[version] / total:.0f} %", colour(index))
            for index, version in enumerate(self._ledger.versions)
            if counts[version]
        ]
        return Text("  ").join(shares) if shares else Text("nobody answers yet", "dim")

    def _crew(self) -> Text:
        generations: dict[int, list[Worker]] = {}
        for worker in self._ledger.workers.values():
            generations.setdefault(worker.generation, []).append(worker)
        return Text("   ").join(
            Text(f"generation {number} {_signs(workers)}")
            for number, workers in sorted(generations.items())
        )


def colour(index: int) -> str:
    """The colour of the version with that index."""
    return PALETTE[index % len(PALETTE)]


def _signs(workers: Sequence[Worker]) -> str:
    ordered = sorted(workers, key=lambda worker: worker.slot)
    return "".join(_SIGNS[worker.state] for worker in ordered)


def _flag_first(texts: Sequence[str]) -> Iterator[tuple[bool, str]]:
    return ((number == 0, text) for number, text in enumerate(texts))
