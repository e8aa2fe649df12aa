"""Rows and charts for what was measured of several programs in turns."""

import statistics
from collections.abc import Mapping, Sequence

from bench.results import Chart, Row, Series, spread, times

Samples = Mapping[str, Sequence[float]]


def bar_row(what: str, values: Sequence[float], unit: str, most: float) -> Row:
    """Ours alone, against a figure that we have set ourselves."""
    reached = statistics.median(values) <= most
    return Row(what, spread(values, unit), bar=f"≤ {most:g} {unit}", reached=reached)


def peer_rows(
    what: str, found: Samples, unit: str, bars: Mapping[str, float], asides: Mapping[str, str]
) -> list[Row]:
    """The first of `found`, ours, against each other one.

    `bars` are the greatest ratios that we allow ourselves, `asides` what else is worth saying, both
    by label.
    """
    (label, mine), *others = found.items()
    ours = f"{spread(mine, unit)}{asides.get(label, '')}"
    middle = statistics.median(mine)
    return [
        Row(
            what,
            ours,
            f"{peer}: {spread(theirs, unit)}{asides.get(peer, '')}",
            times(middle, statistics.median(theirs)),
            _ratio_bar(bars[peer]) if peer in bars else "",
            middle <= bars[peer] * statistics.median(theirs) if peer in bars else None,
        )
        for peer, theirs in others
    ] or [Row(what, ours)]


def bar_chart(
    name: str, title: str, x_label: str, found: Samples, *, is_logarithmic: bool = False
) -> Chart:
    """Medians, with least and greatest."""
    series = [
        Series(label, [statistics.median(values)], low=min(values), high=max(values))
        for label, values in found.items()
    ]
    return Chart(name, "bars", title, x_label, "", series, is_logarithmic)


def _ratio_bar(most: float) -> str:
    return f"≤ {most:g} ×" if most >= 1 else f"≤ 1/{1 / most:.0f}"
