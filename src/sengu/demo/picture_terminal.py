"""A chart as lines of text: a column for each stretch of time, from the median to the slowest.

Pure but for rich's `Text`, which says what is coloured.
"""

import statistics
from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from sengu.demo.chart import (
    PALETTE,
    Chart,
    LogScale,
    MarkKind,
    place_labels,
    show_seconds,
    time_ticks,
)

_ROWS = 10
_MARGIN = 8  # for the values of the y axis
_LABEL_ROWS = 2
_MIN_COLUMNS = 20
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_SIGNS = {MarkKind.GOOD: "▼", MarkKind.REFUSED: "✗", MarkKind.KILL: "✗"}


class Column:
    """What happened in one stretch of time; heights are in rows."""

    def __init__(self, values: Sequence[float], series: int, scale: LogScale) -> None:
        self.median = _ROWS * scale.place(statistics.median(values))
        self.slowest = _ROWS * scale.place(max(values))
        self.ink = PALETTE[series % len(PALETTE)]

    def sign(self, row: int) -> Text:
        """The sign in that row, counted from the bottom."""
        if row + 1 <= self.median:
            return Text("█", self.ink)
        if row < self.median:
            return Text(_EIGHTHS[max(1, round(8 * (self.median - row)))], self.ink)
        if row < self.slowest:
            return Text("│", self.ink)
        return Text(" ")


def draw_terminal(chart: Chart, width: int) -> list[Text]:
    """The chart in lines of at most that width."""
    count = max(_MIN_COLUMNS, width - _MARGIN - 1)
    scale = chart.scale
    columns = _make_columns(chart, scale, count)
    heights = {round(_ROWS * scale.place(tick) - 0.5): tick for tick in scale.ticks}
    lines = [*_mark_lines(chart, count)]
    for row in reversed(range(_ROWS)):
        label = show_seconds(heights[row]) if row in heights else ""
        line = Text(f"{label:>{_MARGIN - 1}} ", "dim") + Text("┤" if label else "│", "dim")
        for column in columns:
            line += column.sign(row) if column else Text(" ")
        lines.append(line)
    lines.extend(_time_lines(chart.seconds, count))
    return lines


def _make_columns(chart: Chart, scale: LogScale, count: int) -> list[Column | None]:
    """None where nothing was measured. The colour is that of whom most points belong to."""
    buckets: list[list[float]] = [[] for _ in range(count)]
    series: list[Counter[int]] = [Counter() for _ in range(count)]
    for point in chart.points:
        number = _column_of(point.x, chart.seconds, count)
        buckets[number].append(point.y)
        series[number][point.series] += 1
    return [
        Column(values, kinds.most_common(1)[0][0], scale) if values else None
        for values, kinds in zip(buckets, series, strict=True)
    ]


def _column_of(moment: float, seconds: float, count: int) -> int:
    return min(count - 1, max(0, int(count * moment / seconds)))


def _mark_lines(chart: Chart, count: int) -> list[Text]:
    """The labels, and below them a sign over the column of each mark."""
    places = [_column_of(mark.x, chart.seconds, count) for mark in chart.marks]
    begins = [
        max(0, min(place - len(mark.label) // 2, count - len(mark.label)))
        for place, mark in zip(places, chart.marks, strict=True)
    ]
    wanted = [
        (begin, begin + len(mark.label) + 1)
        for begin, mark in zip(begins, chart.marks, strict=True)
    ]
    rows = [[" "] * count for _ in range(_LABEL_ROWS)]
    for begin, mark, row in zip(
        begins, chart.marks, place_labels(wanted, _LABEL_ROWS), strict=True
    ):
        if row is not None:
            rows[row][begin : begin + len(mark.label)] = mark.label
    signs = Text(" " * (_MARGIN + 1))
    kinds = dict(zip(places, (mark.kind for mark in chart.marks), strict=True))
    for number in range(count):
        kind = kinds.get(number)
        ink = "" if kind is MarkKind.GOOD else "red"
        signs.append(" " if kind is None else _SIGNS[kind], ink)
    labels = [Text(" " * (_MARGIN + 1) + "".join(row).rstrip()) for row in reversed(rows)]
    return [*(line for line in labels if line.plain.strip()), signs]


def _time_lines(seconds: float, count: int) -> list[Text]:
    """The x axis, and the moments below it."""
    axis, labels = ["─"] * count, [" "] * (count + _MARGIN)
    for tick in time_ticks(seconds, most=max(2, count // 8)):
        place = _column_of(tick, seconds, count)
        axis[place] = "┬"
        words = f"{tick:g} s"
        begin = place if place + len(words) <= count else count - len(words)
        labels[begin : begin + len(words)] = words
    return [
        Text(" " * _MARGIN + "└" + "".join(axis), "dim"),
        Text(" " * (_MARGIN + 1) + "".join(labels).rstrip(), "dim"),
    ]
