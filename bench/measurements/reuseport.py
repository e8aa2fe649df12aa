"""A socket for each worker against one that all share: who gets how much, and what it costs."""

import statistics
from contextlib import ExitStack
from typing import NamedTuple

from bench.compare import bar_chart
from bench.load import Ab, Generator, Wrk
from bench.registry import Measurement
from bench.results import Chart, Result, Row, spread, times
from bench.session import BenchError, Session
from bench.webservers.base import Site
from bench.webservers.sengu import Sengu

_WORKERS = 4
_WARM_REQUESTS = 1000
_MOST_SPREAD = 1.25


class Task(NamedTuple):
    """What is asked of both. `most_spread` is the greatest that is good enough."""

    name: str
    title: str
    generator: Generator
    most_spread: float | None = None


_TASKS = (
    Task("ab", "a connection per request", Ab(20), _MOST_SPREAD),
    Task("wrk", "200 kept connections", Wrk(200)),
)

HOW = """\
`sengu serve` with {workers} workers answers `hello`, once as by default and once with
`--reuseport`; both run all the time, and the other one is idle. `ab -c 20` (a connection per
request) and `wrk -c 200` (kept connections) ask for {seconds} s in each of {rounds} rounds, in
turn. The spread is the greatest number of requests that a worker had, by `GET /v1/status`, divided
by the least. CPU is the time on a processor of all processes, divided by the requests answered."""


class Contender:
    """One of the two, and what was seen of it, by task."""

    def __init__(self, session: Session, stack: ExitStack, label: str, *options: str) -> None:
        self.label = label
        site = Site(workers=_WORKERS, options=options)
        self._server = stack.enter_context(Sengu(session.fresh_directory(), site))
        self._server.wait_answer()
        Ab(20).run(self._server.port, _WARM_REQUESTS, self._server.directory)
        self.spreads: dict[str, list[float]] = {task.name: [] for task in _TASKS}
        self.microseconds: dict[str, list[float]] = {task.name: [] for task in _TASKS}

    def take_turn(self, task: Task, seconds: int) -> None:
        server = self._server
        before, cpu = self._requests(), server.cpu_seconds()
        done = task.generator.run_for(server.port, seconds, server.directory)
        used, after = server.cpu_seconds() - cpu, self._requests()
        if done.failed or not done.requests:
            raise BenchError(f"{self.label}, {task.title}: {done}")
        shares = [after[slot] - before[slot] for slot in after]
        self.spreads[task.name].append(max(shares) / max(1, min(shares)))
        self.microseconds[task.name].append(used / done.requests * 1e6)

    def _requests(self) -> dict[int, int]:
        status = self._server.control.call("GET", "/v1/status")
        return {worker["slot"]: worker["requests"] for worker in status["workers"]}


def run(session: Session) -> Result:
    rounds, seconds = session.pick((7, 3), (1, 1))
    with ExitStack() as stack:
        own = Contender(session, stack, "a socket each (`--reuseport`)", "--reuseport")
        shared = Contender(session, stack, "one shared socket")
        for number in range(rounds):
            session.say(f"round {number + 1} of {rounds}")
            for task in _TASKS:
                for contender in (own, shared) if number % 2 else (shared, own):
                    contender.take_turn(task, seconds)
    rows = [_spread_row(task, own, shared) for task in _TASKS]
    rows += [_cpu_row(task, own, shared) for task in _TASKS]
    return Result(
        title="A socket for each worker",
        how=HOW.format(workers=_WORKERS, seconds=seconds, rounds=rounds),
        rows=rows,
        charts=[_chart(own, shared)],
        samples=_samples(own, shared),
        versions=f"sengu {Sengu.version()}",
    )


def _spread_row(task: Task, own: Contender, shared: Contender) -> Row:
    ours, theirs = own.spreads[task.name], shared.spreads[task.name]
    middle, most = statistics.median(ours), task.most_spread
    return Row(
        f"spread over {_WORKERS} workers, {task.title}",
        spread(ours, "×"),
        f"{shared.label}: {spread(theirs, '×')}",
        times(middle, statistics.median(theirs)),
        "" if most is None else f"≤ {most:g} ×",
        None if most is None else middle <= most,
    )


def _cpu_row(task: Task, own: Contender, shared: Contender) -> Row:
    ours, theirs = own.microseconds[task.name], shared.microseconds[task.name]
    return Row(
        f"CPU per request, {task.title}",
        spread(ours, "µs"),
        f"{shared.label}: {spread(theirs, 'µs')}",
        times(statistics.median(ours), statistics.median(theirs)),
    )


def _chart(own: Contender, shared: Contender) -> Chart:
    task = _TASKS[0]
    found = {contender.label: contender.spreads[task.name] for contender in (own, shared)}
    return bar_chart("reuseport", f"Spread over workers, {task.title}", "greatest / least", found)


def _samples(*contenders: Contender) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for contender in contenders:
        for task in _TASKS:
            name = f"{contender.label}, {task.title}"
            found[f"{name}, spread"] = [round(v, 2) for v in contender.spreads[task.name]]
            found[f"{name}, CPU µs"] = [round(v, 2) for v in contender.microseconds[task.name]]
    return found


MEASUREMENT = Measurement("reuseport", 125, run)
