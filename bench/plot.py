"""Draws charts as small SVG files. Needs matplotlib; the measurements do not."""

import warnings
from pathlib import Path
from typing import Any

from bench.results import Chart, Results, significant

_OURS = "#c8102e"
_PEERS = {"start_server": "#4a6fa5", "supervisor": "#6b9080", "Circus": "#b08968"}
_OTHERS = "#7d7d7d"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and sharp
    "svg.hashsalt": "sengu",  # the same data gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def is_available() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_all(results: Results, directory: Path) -> None:
    """Write bench-NAME.svg for each chart."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        for result in results.values():
            for chart in result.charts:
                figure, axes = pyplot.subplots(figsize=_size(chart), layout="constrained")
                {"lines": _lines, "bars": _bars}[chart.kind](axes, chart)
                axes.set_title(chart.title)
                axes.set_xlabel(chart.x_label)
                target = directory / f"bench-{chart.name}.svg"
                figure.savefig(target, metadata={"Date": None, "Creator": None})
                pyplot.close(figure)


def _size(chart: Chart) -> tuple[float, float]:
    return (6.4, 2.6) if chart.kind == "lines" else (6.4, 1.0 + 0.3 * len(chart.series))


def _colours(chart: Chart) -> list[str]:
    """A program has the same colour everywhere; a label begins with its name."""
    colours = {"sengu": _OURS, **_PEERS}
    found = []
    for series in chart.series:
        named = (colour for name, colour in colours.items() if series.label.startswith(name))
        found.append(next(named, _OTHERS))
    return found


def _lines(axes: Any, chart: Chart) -> None:
    seen_ours = False
    for series, colour in zip(chart.series, _colours(chart), strict=True):
        is_second = colour == _OURS and seen_ours
        seen_ours = seen_ours or colour == _OURS
        axes.plot(
            series.x,
            series.y,
            label=series.label,
            color=colour,
            linewidth=1.4,
            linestyle="--" if is_second else "-",
        )
    axes.set_ylabel(chart.y_label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(chart.series))


def _bars(axes: Any, chart: Chart) -> None:
    labels = [series.label for series in chart.series]
    values = [series.y[0] for series in chart.series]
    lows = [s.y[0] - (s.y[0] if s.low is None else s.low) for s in chart.series]
    highs = [(s.y[0] if s.high is None else s.high) - s.y[0] for s in chart.series]
    bars = axes.barh(
        labels,
        values,
        xerr=(lows, highs),
        color=_colours(chart),
        height=0.6,
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
    )
    axes.bar_label(bars, labels=[significant(value) for value in values], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if chart.is_logarithmic:
        axes.set_xscale("log")
