"""Words and tables for people: durations, safe text, aligned columns, the tool's own messages.

Imported by the verbs.
"""

import sys
from collections.abc import Sequence

import click

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_COLUMN_GAP = "  "
_COLOURS = {
    "ready": "green",
    "serving": "green",
    "starting": "yellow",
    "deploying": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "killed": "red",
    "backoff": "red",
    "closed": "red",
    "stale": "red",
    "no answer": "red",
    "works": "green",
    "does not": "red",
    "unknown": "yellow",
}


def say(message: str) -> None:
    """A message of the tool itself: on stderr, so that stdout stays what was asked for."""
    click.echo(f"sengu: {message}", err=True)


def quote_last_words(last_words: str) -> str:
    """What a failed worker or command wrote last, marked as being its words."""
    lines = "".join(f"\n  | {printable(line)}" for line in last_words.splitlines())
    return f"\nwhat it wrote last:{lines}" if lines else ""


def printable(text: str) -> str:
    """Without what could command a terminal: such text comes from workers, not from us."""
    return "".join(
        sign if sign.isprintable() or sign == "\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    for unit, name, below, below_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, `22nd`."""
    is_teen = number % 100 in (11, 12, 13)
    ending = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def colour_of(state: str) -> str | None:
    """That of a word for a state; None for any other text."""
    return _COLOURS.get(state)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; numbers to the right, states in their colour."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    is_number = [
        bool(rows) and all(_is_number(cell) or cell in ("", "-") for cell in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(headings)

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_number, strict=True)
        ]
        coloured = [
            click.style(text, fg=_COLOURS[cell]) if cell in _COLOURS else text
            for cell, text in zip(cells, padded, strict=True)
        ]
        return _COLUMN_GAP.join(coloured).rstrip()

    return "\n".join([line(headings), *map(line, rows)])


def _is_number(cell: str) -> bool:
    whole, _point, rest = cell.partition(".")
    return whole.isdecimal() and (rest.isdecimal() or not rest)


def is_terminal() -> bool:
    """Whether a person watches what we say."""
    return sys.stderr.isatty()
