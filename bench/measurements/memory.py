"""Memory of the managing processes, while nothing happens."""

import time

from bench import processes
from bench.announcements import Announcements
from bench.compare import bar_chart, bar_row, peer_rows
from bench.managers.available import missing_notes, present
from bench.managers.base import Manager, Order
from bench.managers.sengu import Sengu
from bench.registry import Measurement
from bench.results import Result, Row
from bench.session import Session

_MOST_SUPERVISOR_MEGABYTES = 8.0
_MOST_SERVER_MEGABYTES = 16.0
_WORKERS = 4
_MANY_WORKERS = 100

HOW = """\
Unique memory (USS: `Private_*` of `/proc/PID/smaps_rollup`) of all processes of the tree but the
workers, {settle} s after {workers} workers of a trivial program came up (start_server has one);
sengu has two, its supervisor and its server. {rounds} fresh starts of each, in turns. MB are
millions of bytes."""


class Footprints:
    """Megabytes of sengu's processes, a value for each round."""

    def __init__(self) -> None:
        self.supervisor: list[float] = []
        self.server: list[float] = []


def run(session: Session) -> Result:
    rounds = session.pick(3, 1)
    settle_seconds = session.pick(1.0, 0.2)
    many = session.pick(_MANY_WORKERS, 10)
    found: dict[str, list[float]] = {kind.label: [] for kind in present()}
    ours = {_WORKERS: Footprints(), many: Footprints()}
    crowded: list[float] = []
    for _ in range(rounds):
        for kind in present():
            workers = min(_WORKERS, kind.max_workers or _WORKERS)
            found[kind.label].append(_megabytes(session, kind, workers, settle_seconds, ours))
        crowded.append(_megabytes(session, Sengu, many, settle_seconds, ours))
    how = HOW.format(settle=settle_seconds, workers=_WORKERS, rounds=rounds)
    return _result(how, found, {**found, f"sengu, {many} workers": crowded}, ours)


def _megabytes(
    session: Session,
    kind: type[Manager],
    workers: int,
    settle_seconds: float,
    ours: dict[int, Footprints],
) -> float:
    directory = session.fresh_directory()
    with Announcements(directory) as heard:
        order = Order((session.program("announce"), heard.path), workers)
        with kind(directory, order) as manager:
            heard.wait_many(workers)
            time.sleep(settle_seconds)
            if isinstance(manager, Sengu):
                server = manager.control.server_pid()
                ours[workers].supervisor.append(_unique([manager.pid]))
                ours[workers].server.append(_unique([server]))
            return _unique(manager.managing())


def _unique(pids: list[int]) -> float:
    return processes.unique_bytes(pids) / 1e6


def _result(
    how: str,
    found: dict[str, list[float]],
    bars: dict[str, list[float]],
    ours: dict[int, Footprints],
) -> Result:
    rows: list[Row] = []
    for workers, footprints in ours.items():
        what = f"idle, {workers} workers"
        rows += [
            bar_row(
                f"{what}: the supervisor", footprints.supervisor, "MB", _MOST_SUPERVISOR_MEGABYTES
            ),
            bar_row(f"{what}: the server", footprints.server, "MB", _MOST_SERVER_MEGABYTES),
        ]
    rows += peer_rows(f"idle, {_WORKERS} workers: all but the workers", found, "MB", {}, {})
    title = f"Unique memory, idle with {_WORKERS} workers"
    samples = {f"{label}, MB": values for label, values in bars.items()}
    for workers, footprints in ours.items():
        samples[f"sengu, {workers} workers, supervisor, MB"] = footprints.supervisor
        samples[f"sengu, {workers} workers, server, MB"] = footprints.server
    chart = bar_chart("memory", title, "MB", bars)
    return Result("Memory", how, rows, [chart], missing_notes(), samples)


MEASUREMENT = Measurement("memory", 30, run)
