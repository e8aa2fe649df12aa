"""What a measurement finds: rows for a table, charts, and the samples behind them. Plain data.

Everything the page needs is in here, so that the page can be written again from the JSON file
without measuring anew.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One line of the table. `reached` is None where there is no bar, or nothing to hold to it."""

    what: str
    ours: str
    theirs: str = ""
    ratio: str = ""
    bar: str = ""
    reached: bool | None = None


class Series(msgspec.Struct, frozen=True):
    """Points of one program. For bars: a single y, with the ends of its whisker."""

    label: str
    y: list[float]
    x: list[float] = []
    low: float | None = None
    high: float | None = None


class Chart(msgspec.Struct, frozen=True):
    """A picture, described. `name` becomes bench-NAME.svg."""

    name: str
    kind: Literal["lines", "bars"]
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    is_logarithmic: bool = False


class Result(msgspec.Struct):
    """All that one measurement found. The runner fills in when and where.

    `versions` is of what was measured, if that is not the managers. `bystanders` is the part of the
    processors that other programs used meanwhile.
    """

    title: str
    how: str
    rows: list[Row]
    charts: list[Chart] = []
    notes: list[str] = []
    samples: dict[str, list[float]] = {}
    date: str = ""
    machine: str = ""
    versions: str = ""
    seconds: float = 0.0
    bystanders: float | None = None
    is_quick: bool = False


Results = dict[str, Result]


def load(path: Path) -> Results:
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=Results)


def save(path: Path, results: Results) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def spread(values: Sequence[float], unit: str) -> str:
    """Median, least and greatest, as in `4.1 ms (3.6-9.0)`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{significant(middle)} {unit} ({significant(low)}–{significant(high)})"


def significant(value: float) -> str:
    """Three significant digits, never as an exponent."""
    if value == 0:
        return "0"
    digits = 3
    magnitude = f"{abs(value):e}"
    decimals = max(0, digits - 1 - int(magnitude.partition("e")[2]))
    return f"{value:.{decimals}f}"


def times(ours: float, theirs: float) -> str:
    """Ours in terms of theirs: `0.25 ×`."""
    return f"{significant(ours / theirs)} ×" if theirs else ""
