"""Memory of the managing processes, while nothing happens."""

import statistics
import time

from bench import processes
from bench.announcements import Announcements
from bench.managers.available import missing_notes, present
from bench.managers.base import Manager, Order
from bench.managers.sengu import Sengu
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, spread, times
from bench.session import Session

_MOST_MEGABYTES = 16.0
_WORKERS = 4
_MANY_WORKERS = 100

HOW = """\
Unique memory (USS: `Private_*` of `/proc/PID/smaps_rollup`) of all processes of the tree but the
workers, {settle} s after {workers} workers of a trivial program came up (start_server has one).
{rounds} fresh starts of each, in turns. MB are millions of bytes."""


def run(session: Session) -> Result:
    rounds = session.pick(3, 1)
    settle_seconds = session.pick(1.0, 0.2)
    many = session.pick(_MANY_WORKERS, 10)
    found: dict[str, list[float]] = {kind.label: [] for kind in present()}
    crowded: list[float] = []
    for _ in range(rounds):
        for kind in present():
            workers = min(_WORKERS, kind.max_workers or _WORKERS)
            found[kind.label].append(_megabytes(session, kind, workers, settle_seconds))
        crowded.append(_megabytes(session, Sengu, many, settle_seconds))
    how = HOW.format(settle=settle_seconds, workers=_WORKERS, rounds=rounds)
    return _result(how, found, crowded, many)


def _megabytes(session: Session, kind: type[Manager], workers: int, settle_seconds: float) -> float:
    directory = session.fresh_directory()
    with Announcements(directory) as heard:
        order = Order((session.program("announce"), heard.path), workers)
        with kind(directory, order) as manager:
            heard.wait_many(workers)
            time.sleep(settle_seconds)
            return processes.unique_bytes(manager.managing()) / 1e6


def _result(how: str, found: dict[str, list[float]], crowded: list[float], many: int) -> Result:
    ours = found["sengu"]
    middle = statistics.median(ours)
    bar = f"≤ {_MOST_MEGABYTES:.0f} MB"
    what = f"idle, {_WORKERS} workers"
    rows = [Row(what, spread(ours, "MB"), bar=bar, reached=middle <= _MOST_MEGABYTES)]
    rows += [
        Row(
            what,
            spread(ours, "MB"),
            f"{label}: {spread(theirs, 'MB')}",
            times(middle, statistics.median(theirs)),
        )
        for label, theirs in found.items()
        if label != "sengu"
    ]
    reached = statistics.median(crowded) <= _MOST_MEGABYTES
    rows.append(Row(f"idle, {many} workers", spread(crowded, "MB"), bar=bar, reached=reached))
    bars = {**found, f"sengu, {many} workers": crowded}
    chart = Chart(
        name="memory",
        kind="bars",
        title=f"Unique memory, idle with {_WORKERS} workers",
        x_label="MB",
        y_label="",
        series=[
            Series(label, [statistics.median(values)], low=min(values), high=max(values))
            for label, values in bars.items()
        ],
    )
    samples = {f"{label}, MB": values for label, values in bars.items()}
    return Result("Memory", how, rows, [chart], missing_notes(), samples)


MEASUREMENT = Measurement("memory", 30, run)
