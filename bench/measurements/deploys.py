"""Thousands of deploys of a trivial program: what each takes, and whether anything grows."""

import statistics
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench import processes
from bench.announcements import Announcements
from bench.managers.available import missing_notes, present
from bench.managers.base import Order
from bench.managers.deploying import Deploying
from bench.managers.sengu import Sengu
from bench.managers.start_server import StartServer
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, significant, spread, times
from bench.session import BenchError, Session

_BLOCK = 100
_UNHEARD_SECONDS = 1.0
_MOST_GROWTH = 0.01

HOW = """\
The program is a few lines of C that say `READY=1` if anybody listens, and sleep. Blocks of {block}
deploys alternate between the contenders. A deploy begins with the request (`POST /v1/reload` with
`wait` on one kept connection; HUP for start_server) and ends when the status file names the new
generation and no other: the new worker runs and the old one is gone. Each one is checked: the new
worker itself says of which generation it is. CPU is user and system time of the whole process
tree. Descriptors, children and unique memory of the managing processes are read between blocks;
growth is the median of the last tenth against that of the second tenth, when caches are full."""


class Footprint(NamedTuple):
    """What the managing processes hold after so many deploys."""

    deploys: int
    descriptors: int
    children: int
    unique_bytes: int


class Contender:
    """A manager, how often it is to deploy, and what was seen so far."""

    def __init__(self, label: str, manager: Deploying, heard: Announcements, count: int) -> None:
        self.label = label
        self.manager = manager
        self.count = count
        self.milliseconds: list[float] = []
        self.footprints: list[Footprint] = []
        self.cpu_seconds = 0.0
        self.unheard = 0
        self._heard = heard
        self._generation = heard.wait().generation
        manager.wait_generation(self._generation)

    def run_block(self) -> None:
        """Deploy a block full, if there is anything left to do."""
        size = min(_BLOCK, self.count - len(self.milliseconds))
        cpu = processes.cpu_seconds(self.manager.pid)
        for _ in range(size):
            self._deploy()
        self.cpu_seconds += processes.cpu_seconds(self.manager.pid) - cpu
        if size:
            self.footprints.append(self._footprint())

    def _deploy(self) -> None:
        begin = time.monotonic()
        expected = self._generation + 1
        self.manager.request_deploy()
        try:
            announced = self._heard.wait(_UNHEARD_SECONDS)
        except BenchError:
            self.manager.check_alive()
            self.manager.nudge()
            self.unheard += 1
            announced = self._heard.wait()
        if announced.generation != expected:
            raise BenchError(f"{self.label}: generation {announced.generation}, not {expected}")
        self.manager.wait_generation(expected)
        self._generation = expected
        self.milliseconds.append((time.monotonic() - begin) * 1000)

    def _footprint(self) -> Footprint:
        pids = self.manager.managing()
        return Footprint(
            len(self.milliseconds),
            processes.descriptors(pids),
            sum(len(processes.children(pid)) for pid in pids),
            processes.unique_bytes(pids),
        )


def run(session: Session) -> Result:
    count = session.pick(10_000, 40)
    program = session.program("announce")
    by_delay = ("--interval", "0")
    plans: list[tuple[str, type[Deploying], tuple[str, ...], int]] = [
        ("sengu", Sengu, ("--ready", "notify"), count),
        ("sengu --interval 0", Sengu, by_delay, count // 10),
    ]
    if StartServer in present(StartServer):
        plans.append(("start_server", StartServer, by_delay, count))
    contenders: list[Contender] = []
    with ExitStack() as stack:
        for label, kind, options, share in plans:
            directory = session.fresh_directory()
            heard = stack.enter_context(Announcements(directory))
            order = Order((program, heard.path), options=options)
            manager = stack.enter_context(kind(directory, order))
            contenders.append(Contender(label, manager, heard, share))
        for done in range(0, count, _BLOCK):
            for contender in contenders:
                contender.run_block()
            if done % 2000 == 0:
                session.say(f"{done} of {count} deploys")
    return _result(contenders)


def _result(contenders: list[Contender]) -> Result:
    notes = missing_notes(StartServer)
    for contender in contenders:
        if contender.unheard:
            notes.append(
                f"{contender.label} had done nothing {_UNHEARD_SECONDS:g} s after "
                f"{contender.unheard} of {contender.count} HUPs, and obeyed when another signal "
                "(ALRM) woke it: a HUP can slip in between its look at the list of signals and "
                "its wait. These deploys are in its figures."
            )
    ours, alive, *peers = contenders
    peer = peers[0] if peers else None
    rows = [
        _time_row("time per deploy, ready by `READY=1`", ours, peer),
        _time_row("time per deploy, ready when alive", alive, peer),
        _cpu_row(ours, peer),
        *_flat_rows(ours, peer),
    ]
    return Result(
        title="Deploys",
        how=HOW.format(block=_BLOCK),
        rows=rows,
        charts=[_memory_chart(contenders), _descriptor_chart(contenders)],
        notes=notes,
        samples={f"{c.label}, ms per deploy": _thinned(c.milliseconds) for c in contenders},
    )


def _time_row(what: str, ours: Contender, peer: Contender | None) -> Row:
    mine = statistics.median(ours.milliseconds)
    return Row(
        f"{what} ({ours.count} deploys)",
        spread(ours.milliseconds, "ms"),
        f"start_server: {spread(peer.milliseconds, 'ms')}" if peer else "",
        times(mine, statistics.median(peer.milliseconds)) if peer else "",
    )


def _cpu_row(ours: Contender, peer: Contender | None) -> Row:
    mine = ours.cpu_seconds / ours.count * 1000
    theirs = peer.cpu_seconds / peer.count * 1000 if peer else 0.0
    return Row(
        "CPU per deploy, its worker included",
        f"{significant(mine)} ms",
        f"start_server: {significant(theirs)} ms" if peer else "",
        times(mine, theirs),
    )


def _flat_rows(ours: Contender, peer: Contender | None) -> list[Row]:
    def row(what: str, unit: str, column: int, scale: int, most_growth: float) -> Row:
        before, after = _early_and_late(ours, column)
        return Row(
            f"{what} after {ours.footprints[0].deploys} → {ours.count} deploys",
            _change(ours, column, scale, unit),
            f"start_server: {_change(peer, column, scale, unit)}" if peer else "",
            bar=f"growth ≤ {most_growth:.0%}" if most_growth else "no growth",
            reached=after <= before * (1 + most_growth),
        )

    return [
        row("descriptors", "", 1, 1, 0.0),
        row("children", "", 2, 1, 0.0),
        row("unique memory", " MB", 3, 1_000_000, _MOST_GROWTH),
    ]


def _change(contender: Contender, column: int, scale: int, unit: str) -> str:
    before, after = _early_and_late(contender, column)
    first = contender.footprints[0][column]
    growth = f" ({(after / before - 1) * 100:+.1f} %)" if unit else ""
    return f"{significant(first / scale)} → {significant(after / scale)}{unit}{growth}"


def _early_and_late(contender: Contender, column: int) -> tuple[float, float]:
    """Medians of the second and of the last tenth of the run."""
    values = [footprint[column] for footprint in contender.footprints]
    tenth = max(1, len(values) // 10)
    early = values[tenth : 2 * tenth] or values
    return statistics.median(early), statistics.median(values[-tenth:])


def _memory_chart(contenders: list[Contender]) -> Chart:
    return Chart(
        name="deploys-memory",
        kind="lines",
        title="Unique memory",
        x_label="deploys",
        y_label="MB",
        series=[
            Series(
                c.label,
                [f.unique_bytes / 1e6 for f in c.footprints],
                [float(f.deploys) for f in c.footprints],
            )
            for c in contenders
        ],
    )


def _descriptor_chart(contenders: list[Contender]) -> Chart:
    return Chart(
        name="deploys-descriptors",
        kind="lines",
        title="Descriptors",
        x_label="deploys",
        y_label="descriptors",
        series=[
            Series(
                c.label,
                [float(f.descriptors) for f in c.footprints],
                [float(f.deploys) for f in c.footprints],
            )
            for c in contenders
        ],
    )


def _thinned(values: list[float], most: int = 500) -> list[float]:
    """Every n-th value, rounded, so that the file stays small."""
    step = max(1, len(values) // most)
    return [round(value, 3) for value in values[::step]]


MEASUREMENT = Measurement("deploys", 10, run)
