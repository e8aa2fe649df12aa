"""A picture before it is drawn: points over time, what is marked on them, and scales.

Pure. Any measurement over time can be put into a `Chart`; `picture_svg` and `picture_terminal`
draw it.
"""

import enum
import math
from collections.abc import Sequence

import msgspec

# Of middling lightness, to be told from white and from black. Red is for what went wrong.
PALETTE = ("#3b82f6", "#e69f00", "#10a37f", "#a855f7", "#0ea5b7", "#d9659b")
_STEPS = (1, 2, 5)
_ROOM = 1.2


class Point(msgspec.Struct, frozen=True):
    """`x` and `y` are seconds; `series` counts from 0."""

    x: float
    y: float
    series: int = 0


class MarkKind(enum.StrEnum):
    """GOOD is what was meant to work and did, REFUSED what was meant to be refused."""

    GOOD = "good"
    REFUSED = "refused"
    KILL = "kill"


class Mark(msgspec.Struct, frozen=True):
    """Something that began at `since` and was done at `x`."""

    x: float
    label: str
    kind: MarkKind = MarkKind.GOOD
    since: float | None = None


class Chart(msgspec.Struct, frozen=True):
    """`seconds` is the length of the x axis. `faults` are points to be drawn as crosses.

    `notes` are lines below the title, for pictures that stand alone.
    """

    title: str
    notes: tuple[str, ...]
    seconds: float
    points: tuple[Point, ...]
    marks: tuple[Mark, ...] = ()
    faults: tuple[Point, ...] = ()
    y_title: str = "latency"

    @property
    def scale(self) -> "LogScale":
        return LogScale([point.y for point in (*self.points, *self.faults) if point.y > 0])


class LogScale:
    """A logarithmic axis around the values, with some room, and the round values on it."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low = min(values, default=0.001) / _ROOM
        self.high = max(values, default=0.01) * _ROOM
        rounds = _round_values(self.low, self.high)
        # An axis says nothing without two numbers on it.
        while len(ticks := [tick for tick in rounds if self.low <= tick <= self.high]) < 2:
            self.low, self.high = self.low / _ROOM, self.high * _ROOM
        self.ticks = ticks

    def place(self, value: float) -> float:
        """0 at the axis' beginning, 1 at its end; values beyond are put there."""
        low, high = math.log(self.low), math.log(self.high)
        return min(1.0, max(0.0, (math.log(max(value, self.low)) - low) / (high - low)))


def _round_values(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    return [step * 10.0**exponent for exponent in exponents for step in _STEPS]


def time_ticks(seconds: float, most: int) -> list[float]:
    """Round moments from 0 on, not more than `most`."""
    step = next(s for s in _round_values(0.1, max(seconds, 1.0)) if seconds / s < most)
    return [number * step for number in range(math.floor(seconds / step) + 1)]


def show_seconds(seconds: float) -> str:
    """`350 µs`, `5 ms`, `5.6 ms`, `1.2 s`."""
    if math.isnan(seconds):
        return "–"
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit * 0.9995:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 9.95 else f"{_short(value)} {name}"
    return f"{seconds * 1e6:.0f} µs"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def place_labels(wanted: Sequence[tuple[float, float]], rows: int) -> list[int | None]:
    """The first row with room for each label, given its begin and end; None when there is none."""
    ends = [-math.inf] * rows
    placed: list[int | None] = []
    for begin, end in wanted:
        row = next((number for number in range(rows) if ends[number] <= begin), None)
        if row is not None:
            ends[row] = end
        placed.append(row)
    return placed
