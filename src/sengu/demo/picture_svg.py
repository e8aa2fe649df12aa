"""A chart as SVG, written by hand: small, sharp, readable on light and on dark pages.

Points are put into cells of a grid, so that the file stays small however many there are. Pure.
"""

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from sengu.demo.chart import (
    PALETTE,
    Chart,
    LogScale,
    Mark,
    Point,
    place_labels,
    show_seconds,
    time_ticks,
)

_WIDTH, _HEIGHT = 880, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 120, 48
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_FLOOR = _HEIGHT - _BOTTOM
_DOT = 3  # a cell of the grid, and what is drawn for it
_SIGN_WIDTH = 6.5  # of the labels' letters, about
_LABEL_ROWS, _LINE_HEIGHT = 2, 16

_STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#57606a}
.paper{fill:#fff;stroke:#d0d7de}
.title{font-size:16px;font-weight:600;fill:#1f2328}
.grid{stroke:#d0d7de}
.axis{stroke:#8c959f}
.label{paint-order:stroke;stroke:#fff;stroke-width:4px}
.refused,.kill{fill:#d1242f}
.band{opacity:.16}.band.good{fill:#8c959f}
.line{stroke-width:1;stroke-dasharray:3 3;opacity:.8}
.line.good{stroke:#8c959f}.line.refused,.line.kill{stroke:#d1242f}
.dots{fill:none;stroke-width:3;stroke-linecap:round;opacity:.85}
.fault{fill:none;stroke:#d1242f;stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#9198a1}.title{fill:#f0f6fc}.paper{fill:#0d1117;stroke:#3d444d}
.label{stroke:#0d1117}.grid{stroke:#2a313a}.axis{stroke:#656c76}
.refused,.kill{fill:#ff7b72}.line.refused,.line.kill,.fault{stroke:#ff7b72}}
"""


def draw_svg(chart: Chart) -> str:
    """The chart as a complete SVG document."""
    scale = chart.scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" x=".5" y=".5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="8"/>',
        _text(20, 30, chart.title, "title"),
        *(_text(20, 50 + _LINE_HEIGHT * n, note) for n, note in enumerate(chart.notes)),
        *_draw_y_axis(scale, chart.y_title),
        *_draw_x_axis(chart.seconds),
        *_draw_marks(chart),
        *_draw_points(chart, scale),
        *(_draw_fault(point, chart, scale) for point in chart.faults),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(moment: float, seconds: float) -> float:
    return _LEFT + _PLOT_WIDTH * min(1.0, max(0.0, moment / seconds))


def _y(value: float, scale: LogScale) -> float:
    return _FLOOR - _PLOT_HEIGHT * scale.place(value)


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}"{kind}{side}>{escape(words)}</text>'


def _line(x: float, y: float, way: str, style: str) -> str:
    return f'<path class="{style}" d="M{x:.1f} {y:.1f}{way}"/>'


def _draw_y_axis(scale: LogScale, title: str) -> Iterator[str]:
    for tick in scale.ticks:
        y = _y(tick, scale)
        yield _line(_LEFT, y, f"h{_PLOT_WIDTH}", "grid")
        yield _text(_LEFT - 8, round(y + 4), show_seconds(tick), anchor="end")
    middle = _TOP + _PLOT_HEIGHT / 2
    yield (
        f'<text text-anchor="middle" transform="translate(18 {middle:g}) rotate(-90)">'
        f"{escape(title)}</text>"
    )


def _draw_x_axis(seconds: float) -> Iterator[str]:
    yield _line(_LEFT, _FLOOR, f"h{_PLOT_WIDTH}", "axis")
    for tick in time_ticks(seconds, most=12):
        x = _x(tick, seconds)
        yield _line(x, _FLOOR, "v5", "axis")
        yield _text(round(x), _FLOOR + 19, f"{tick:g}", anchor="middle")
    yield _text(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 10, "seconds", anchor="middle")


def _draw_marks(chart: Chart) -> Iterator[str]:
    """A line where each was done, a band from where it began, and its label above."""
    lines = [_x(mark.x, chart.seconds) for mark in chart.marks]
    spans = [_label_span(x, mark) for x, mark in zip(lines, chart.marks, strict=True)]
    rows = place_labels(spans, _LABEL_ROWS)
    for x, mark, row in zip(lines, chart.marks, rows, strict=True):
        since = x if mark.since is None else _x(mark.since, chart.seconds)
        yield (
            f'<rect class="band {mark.kind}" x="{since:.1f}" y="{_TOP}" '
            f'width="{x - since:.1f}" height="{_PLOT_HEIGHT}"/>'
        )
        yield _line(x, _FLOOR, f"V{_label_floor(row or 0) + 4}", f"line {mark.kind}")
    # After all lines: a label breaks those that pass behind it.
    for (begin, _end), mark, row in zip(spans, chart.marks, rows, strict=True):
        if row is not None:
            yield _text(round(begin), _label_floor(row), mark.label, f"label {mark.kind}")


def _label_floor(row: int) -> int:
    return _TOP - 8 - _LINE_HEIGHT * row


def _label_span(x: float, mark: Mark) -> tuple[float, float]:
    """Where the label is, with a gap after it: over its line, but not over the edge."""
    width = _SIGN_WIDTH * len(mark.label)
    begin = min(x - width / 2, _WIDTH - _RIGHT - width)
    return begin, begin + width + 8


def _draw_points(chart: Chart, scale: LogScale) -> Iterator[str]:
    series: dict[int, set[tuple[int, int]]] = {}
    for point in chart.points:
        x = round(_x(point.x, chart.seconds) / _DOT)
        y = round(_y(point.y, scale) / _DOT)
        series.setdefault(point.series, set()).add((x, y))
    for number, cells in sorted(series.items()):
        ink = PALETTE[number % len(PALETTE)]
        yield f'<path class="dots" stroke="{ink}" d="{_dots(sorted(cells))}"/>'


def _dots(cells: Iterable[tuple[int, int]]) -> str:
    """Lines without length, which have round ends, each relative to the one before: it is short."""
    steps = []
    last_x = last_y = 0
    for x, y in cells:
        steps.append(f"m{(x - last_x) * _DOT} {(y - last_y) * _DOT}h0")
        last_x, last_y = x, y
    return "".join(steps)


def _draw_fault(point: Point, chart: Chart, scale: LogScale) -> str:
    x, y = _x(point.x, chart.seconds), _y(point.y, scale)
    return _line(x - 4, y - 4, "l8 8m-8 0l8-8", "fault")
