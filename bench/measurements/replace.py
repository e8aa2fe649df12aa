"""A worker is killed with -9: how long until its replacement runs?"""

import os
import random
import signal
import statistics
import time
from contextlib import ExitStack

from bench.announcements import Announcement, Announcements
from bench.managers.available import missing_notes, present
from bench.managers.base import Manager, Order
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, spread, times
from bench.session import BenchError, Session

# Circus looks for the dead at intervals: kills are spread evenly over them, as in life.
_CHECK_SECONDS = {"Circus": 5.0}
_BARS = {"supervisor": 1 / 20, "Circus": 1 / 20}
_MOST_MILLISECONDS = 15.0

HOW = """\
The worker is the same few lines of C for all; its first act is to tell the time and its pid. The
clock runs from just before `kill -9` to that moment. {count} kills for each, in turns. sengu starts
the replacement of a worker at once if its slot was stable, and backs off when it dies again and
again; so that no back-off is measured, each kill hits another slot of {count}. start_server has one
worker and no back-off with `--interval 0`. supervisor, with `startsecs=0`, starts a program anew at
its next tick, a second later. Circus, with its defaults, looks every 5 s, so the moment of the kill
is spread evenly over that time."""


class Victims:
    """A manager and its workers, each to be killed once, its replacements last."""

    def __init__(self, manager: Manager, heard: Announcements) -> None:
        self.manager = manager
        self.milliseconds: list[float] = []
        self._heard = heard
        self._living: list[Announcement] = heard.wait_many(manager.order.workers)

    def kill_one(self, most_check_seconds: float) -> None:
        check = min(_CHECK_SECONDS.get(self.manager.label, 0.05), most_check_seconds)
        time.sleep(random.uniform(0, check))
        victim = self._living.pop(0)
        killed_at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        replacement = self._heard.wait()
        if replacement.at < killed_at or replacement.pid == victim.pid:
            raise BenchError(f"{self.manager.label} started a worker that nobody had killed")
        self._living.append(replacement)
        self.milliseconds.append((replacement.at - killed_at) * 1000)


def run(session: Session) -> Result:
    count = session.pick(30, 2)
    kinds = present()
    with ExitStack() as stack:
        all_victims = []
        for kind in kinds:
            directory = session.fresh_directory()
            heard = stack.enter_context(Announcements(directory))
            workers = min(count, kind.max_workers or count)
            order = Order((session.program("announce"), heard.path), workers)
            manager = stack.enter_context(kind(directory, order))
            all_victims.append(Victims(manager, heard))
        time.sleep(session.pick(2.0, 0.1))  # let them come to rest after the start
        for number in range(count):
            for victims in all_victims:
                victims.kill_one(session.pick(10.0, 0.1))
            if number % 10 == 0:
                session.say(f"{number} of {count} kills")
    return _result(all_victims, count)


def _result(all_victims: list[Victims], count: int) -> Result:
    found = {victims.manager.label: victims.milliseconds for victims in all_victims}
    ours = found.pop("sengu")
    middle = statistics.median(ours)
    title = "killed → replacement running"
    rows = [
        Row(title, spread(ours, "ms"), bar="≤ 15 ms", reached=middle <= _MOST_MILLISECONDS),
    ]
    for label, theirs in found.items():
        ratio = middle / statistics.median(theirs)
        bar = _BARS.get(label)
        rows.append(
            Row(
                title,
                spread(ours, "ms"),
                f"{label}: {spread(theirs, 'ms')}",
                times(middle, statistics.median(theirs)),
                f"≤ 1/{1 / bar:.0f}" if bar else "",
                ratio <= bar if bar else None,
            )
        )
    chart = Chart(
        name="replace",
        kind="bars",
        title="Worker killed → replacement running",
        x_label="ms, median and range, logarithmic",
        y_label="",
        series=[
            Series(label, [statistics.median(values)], low=min(values), high=max(values))
            for label, values in {"sengu": ours, **found}.items()
        ],
        is_logarithmic=True,
    )
    samples = {
        f"{victims.manager.label}, ms": [round(value, 3) for value in victims.milliseconds]
        for victims in all_victims
    }
    how = HOW.format(count=count)
    return Result("A worker is killed", how, rows, [chart], missing_notes(), samples)


MEASUREMENT = Measurement("replace", 20, run)
