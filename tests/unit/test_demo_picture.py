"""Pictures of latency: what is on them, and that they stay within their bounds."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.demo.chart import (
    Chart,
    LogScale,
    Mark,
    MarkKind,
    Point,
    place_labels,
    show_seconds,
    time_ticks,
)
from sengu.demo.picture_svg import draw_svg
from sengu.demo.picture_terminal import draw_terminal

SVG = "{http://www.w3.org/2000/svg}"
LATENCIES = st.floats(min_value=1e-6, max_value=100.0)

CHART = Chart(
    title="2 deploys & a <kill>",
    notes=("of no matter what", "a dot is a request"),
    seconds=10.0,
    points=tuple(Point(n / 100, 0.005 + 0.001 * (n % 7), series=n // 500) for n in range(1000)),
    marks=(
        Mark(5.0, "birch", since=4.8),
        Mark(7.0, "broken: aborted", MarkKind.REFUSED, since=6.0),
        Mark(9.9, "kill -9", MarkKind.KILL),
    ),
    faults=(Point(9.9, 0.002),),
)
EMPTY = Chart(title="nothing", notes=(), seconds=0.001, points=())


def words_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_the_svg_says_what_it_shows() -> None:
    words = words_of(draw_svg(CHART))
    assert {CHART.title, *CHART.notes, "latency", "seconds"} <= set(words)
    assert {"birch", "broken: aborted", "kill -9"} <= set(words)
    assert {"5 ms", "10 ms", "0", "5", "10"} <= set(words)


def test_the_svg_draws_each_series_and_each_fault() -> None:
    root = ElementTree.fromstring(draw_svg(CHART))
    paths = [path.get("class") for path in root.iter(f"{SVG}path")]
    assert paths.count("dots") == 2
    assert paths.count("fault") == 1


def test_the_svg_stays_small_however_many_requests_there_are() -> None:
    points = tuple(Point(n / 10_000, 0.001 + (n * 7919 % 1000) / 1e4) for n in range(200_000))
    assert len(draw_svg(Chart("t", ("s",), 20.0, points))) < 400_000
    usual = tuple(Point(n / 500, 0.005 + (n * 31 % 17) / 1e4) for n in range(10_000))
    assert len(draw_svg(Chart("t", ("s",), 20.0, usual))) < 60_000


def test_what_the_svg_shows_is_on_its_paper() -> None:
    root = ElementTree.fromstring(draw_svg(CHART))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for path in root.iter(f"{SVG}path"):
        if path.get("class") == "dots":
            x = y = 0.0
            for dx, dy in re.findall(r"m(-?\d+) (-?\d+)h0", path.get("d") or ""):
                x, y = x + float(dx), y + float(dy)
                assert 0 < x < width
                assert 0 < y < height


@pytest.mark.parametrize("width", [30, 80, 137, 200])
@pytest.mark.parametrize("chart", [CHART, EMPTY], ids=["full", "empty"])
def test_the_terminal_picture_keeps_to_its_width(chart: Chart, width: int) -> None:
    assert all(line.cell_len <= width for line in draw_terminal(chart, width))


def test_the_terminal_picture_has_marks_labels_and_moments() -> None:
    text = "\n".join(line.plain for line in draw_terminal(CHART, 80))
    assert "birch" in text
    assert "broken: aborted" in text
    assert (text.count("▼"), text.count("✗")) == (1, 2)
    assert "5 ms ┤" in text
    assert re.search(r"\b10 s\b", text)


def test_an_empty_chart_can_be_drawn() -> None:
    assert "nothing" in words_of(draw_svg(EMPTY))


@given(st.lists(LATENCIES, min_size=1))
def test_a_scale_has_two_numbers_at_least_and_keeps_the_order(values: list[float]) -> None:
    scale = LogScale(values)
    assert len(scale.ticks) >= 2
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 < place < 1 for place in places)


@given(st.floats(min_value=0.001, max_value=1e5), st.integers(min_value=2, max_value=30))
def test_time_ticks_are_few_and_within(seconds: float, most: int) -> None:
    ticks = time_ticks(seconds, most)
    assert 1 <= len(ticks) <= most
    assert ticks[0] == 0
    assert ticks[-1] <= seconds


@given(
    st.lists(st.tuples(st.floats(0, 800), st.floats(1, 200)), max_size=20).map(sorted),
    st.integers(1, 3),
)
def test_labels_do_not_overlap(spans: list[tuple[float, float]], rows: int) -> None:
    wanted = [(begin, begin + width) for begin, width in spans]
    placed = place_labels(wanted, rows)
    for row in range(rows):
        ends = 0.0
        for (begin, end), where in zip(wanted, placed, strict=True):
            if where == row:
                assert begin >= ends
                ends = end


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00035, "350 µs"),
        (0.0009996, "1 ms"),
        (0.005, "5 ms"),
        (0.00561, "5.6 ms"),
        (0.0131, "13 ms"),
        (0.9999, "1 s"),
        (1.25, "1.2 s"),
        (12.0, "12 s"),
        (math.nan, "–"),
    ],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown
