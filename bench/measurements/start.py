"""From the exec of the manager to workers that run."""

import statistics

from bench.announcements import Announcements
from bench.managers.available import missing_notes, present
from bench.managers.base import Manager, Order
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, spread, times
from bench.session import Session

_MOST_SPREAD_MILLISECONDS = 300.0

HOW = """\
From just before the manager is executed (`python -m …` for those in Python) to the moment at which
a worker, a few lines of C, says that it runs, by its own clock. {rounds} starts of each, in turns;
then {crowd_rounds} with {many} workers for those that can have them, to the last of them."""


class Starts:
    """Milliseconds by label: to the first worker, to the last, and between these two."""

    def __init__(self) -> None:
        self.first: dict[str, list[float]] = {}
        self.last: dict[str, list[float]] = {}
        self.between: dict[str, list[float]] = {}

    def add(self, label: str, first: float, last: float) -> None:
        self.first.setdefault(label, []).append(first)
        self.last.setdefault(label, []).append(last)
        self.between.setdefault(label, []).append(last - first)


def run(session: Session) -> Result:
    rounds, crowd_rounds = session.pick(7, 1), session.pick(3, 1)
    many = session.pick(100, 10)
    single, crowd = Starts(), Starts()
    for _ in range(rounds):
        for kind in present():
            _start(session, kind, 1, single)
    for _ in range(crowd_rounds):
        for kind in present():
            if kind.max_workers is None:
                _start(session, kind, many, crowd)
    how = HOW.format(rounds=rounds, crowd_rounds=crowd_rounds, many=many)
    return _result(how, single, crowd, many)


def _start(session: Session, kind: type[Manager], workers: int, into: Starts) -> None:
    directory = session.fresh_directory()
    with Announcements(directory) as heard:
        order = Order((session.program("announce"), heard.path), workers)
        with kind(directory, order) as manager:
            moments = [
                (announced.at - manager.started_at) * 1000 for announced in heard.wait_many(workers)
            ]
            into.add(kind.label, min(moments), max(moments))


def _result(how: str, single: Starts, crowd: Starts, many: int) -> Result:
    between = crowd.between["sengu"]
    rows = [
        *_rows("exec → worker runs", single.first),
        *_rows(f"exec → {many} workers run", crowd.last),
        Row(
            f"first → last of {many} workers runs",
            spread(between, "ms"),
            bar="≤ 300 ms",
            reached=statistics.median(between) <= _MOST_SPREAD_MILLISECONDS,
        ),
    ]
    chart = Chart(
        name="start",
        kind="bars",
        title="From the start of the manager to its first worker",
        x_label="ms, median and range",
        y_label="",
        series=[
            Series(label, [statistics.median(values)], low=min(values), high=max(values))
            for label, values in single.first.items()
        ],
    )
    samples = {f"{label}, ms to the first": values for label, values in single.first.items()}
    samples |= {f"{label}, ms to the last of {many}": v for label, v in crowd.last.items()}
    return Result("Start", how, rows, [chart], missing_notes(), samples)


def _rows(what: str, found: dict[str, list[float]]) -> list[Row]:
    ours = found["sengu"]
    return [
        Row(
            what,
            spread(ours, "ms"),
            f"{label}: {spread(theirs, 'ms')}",
            times(statistics.median(ours), statistics.median(theirs)),
        )
        for label, theirs in found.items()
        if label != "sengu"
    ] or [Row(what, spread(ours, "ms"))]


MEASUREMENT = Measurement("start", 60, run)
