"""What a request costs: CPU time of the whole server for a hello."""

import statistics
from contextlib import ExitStack
from typing import NamedTuple

from bench.compare import bar_chart, peer_rows
from bench.load import Ab, Generator, Wrk
from bench.registry import Measurement
from bench.results import Chart, Result, Row
from bench.session import BenchError, Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.granian import Granian, GranianAsgi
from bench.webservers.gunicorn import Gunicorn, GunicornThreads
from bench.webservers.in_c import Bjoern, FastWsgi
from bench.webservers.puma import Puma
from bench.webservers.sengu import Sengu, SenguAsgi
from bench.webservers.unicorn import Unicorn
from bench.webservers.uvicorn import Uvicorn
from bench.webservers.uwsgi import Uwsgi

_KINDS: tuple[type[WebServer], ...] = (
    *(Sengu, Bjoern, FastWsgi, Uwsgi, Gunicorn, GunicornThreads, Granian, Unicorn, Puma),
    *(SenguAsgi, GranianAsgi, Uvicorn),
)
_CONNECTIONS = 16
_WARM_REQUESTS = 1000


class Task(NamedTuple):
    """What is asked of each server. `bars` are the greatest ratios, with one worker, by peer."""

    name: str
    title: str
    generator: Generator
    bars: dict[str, float]


_TASKS = (
    Task(
        "keep-alive",
        "keep-alive",
        Wrk(_CONNECTIONS),
        {"bjoern": 1.2, "gunicorn sync": 1 / 10, "granian WSGI": 1 / 2},
    ),
    Task("browser", "keep-alive, a browser's requests", Wrk(_CONNECTIONS, "varied.lua"), {}),
    Task("connection", "a connection per request", Ab(_CONNECTIONS), {"bjoern": 1.1}),
)

HOW = """\
The application answers `hello`; all servers are started anew for each round, and are idle but for
the one whose turn it is. CPU is the time on a processor of all its processes and threads
(`/proc/PID/task/*/schedstat`) while `wrk -c {connections}`, or `ab -c {connections}` for a
connection per request, asks for {seconds} s, divided by the requests answered. These requests are
short and all the same; those of a browser have ten fields and a new path each. {rounds} rounds with
one worker, {crowd_rounds} with two. sengu runs with all its limits, timeouts and titles, as by
default. gunicorn's sync worker and Unicorn close each connection, also those of wrk; uWSGI's
`http11-socket` serves one connection at a time. `/s` is the throughput, of processors that the
server shares with its clients."""


class Contender:
    """A kind of server, and what its requests cost so far, by task. Started anew in each round."""

    def __init__(self, kind: type[WebServer], workers: int) -> None:
        self.kind = kind
        self.workers = workers
        self.microseconds: dict[str, list[float]] = {task.name: [] for task in _TASKS}
        self.rates: dict[str, list[float]] = {task.name: [] for task in _TASKS}
        self.failed = 0

    @property
    def label(self) -> str:
        return self.kind.label

    def start(self, session: Session, stack: ExitStack) -> WebServer:
        site = Site(workers=self.workers)
        server = stack.enter_context(self.kind(session.fresh_directory(), site))
        server.wait_answer()
        Ab(_CONNECTIONS).run(server.port, _WARM_REQUESTS, server.directory)
        return server

    def take_turn(self, task: Task, server: WebServer, seconds: int) -> None:
        before = server.cpu_seconds()
        try:
            done = task.generator.run_for(server.port, seconds, server.directory)
        except BenchError as problem:
            raise BenchError(f"{self.label}: {problem}") from problem
        used = server.cpu_seconds() - before
        self.microseconds[task.name].append(used / max(1, done.requests) * 1e6)
        self.rates[task.name].append(done.requests_per_second)
        self.failed += done.failed


def run(session: Session) -> Result:
    seconds = 1
    rounds, crowd_rounds = session.pick((5, 1), (1, 0))
    kinds = present(*session.pick(_KINDS, (Sengu, Bjoern, SenguAsgi, Uvicorn)))
    contenders = [Contender(kind, workers=1) for kind in kinds]
    crowds = [Contender(kind, workers=2) for kind in kinds if crowd_rounds]
    for group, group_rounds in ((contenders, rounds), (crowds, crowd_rounds)):
        for number in range(group_rounds):
            session.say(f"round {number + 1} of {group_rounds}")
            # Each begins with another one, so that none gains by its place.
            _run_round(session, group[number:] + group[:number], seconds)
    how = HOW.format(
        connections=_CONNECTIONS, seconds=seconds, rounds=rounds, crowd_rounds=crowd_rounds
    )
    return _result(how, contenders, crowds)


def _run_round(session: Session, group: list[Contender], seconds: int) -> None:
    with ExitStack() as stack:
        servers = [contender.start(session, stack) for contender in group]
        for task in _TASKS:
            for contender, server in zip(group, servers, strict=True):
                contender.take_turn(task, server, seconds)


def _result(how: str, contenders: list[Contender], crowds: list[Contender]) -> Result:
    rows: list[Row] = []
    for task in _TASKS:
        for title, group, bars in (
            (f"{task.title}, 1 worker", contenders, task.bars),
            (f"{task.title}, 2 workers", crowds, {}),
        ):
            for interface in ("wsgi", "asgi"):
                rows += _rows(title, task, _of_interface(group, interface), bars)
    notes = missing_notes(*_KINDS)
    notes += [
        f"{c.label}, {c.workers} workers: {c.failed} requests failed."
        for c in contenders + crowds
        if c.failed
    ]
    samples = {}
    for c in contenders + crowds:
        for task in _TASKS:
            name = f"{c.label}, {c.workers} workers, {task.title}"
            samples[f"{name}, CPU µs per request"] = [
                round(v, 2) for v in c.microseconds[task.name]
            ]
            samples[f"{name}, requests/s"] = [round(v) for v in c.rates[task.name]]
    return Result(
        title="What a request costs",
        how=how,
        rows=rows,
        charts=[_chart(task, contenders) for task in _TASKS],
        notes=notes,
        samples=samples,
        versions=versions(*_KINDS),
    )


def _of_interface(group: list[Contender], interface: str) -> list[Contender]:
    """Ruby's servers beside WSGI's."""
    return [c for c in group if (c.kind.interface == "asgi") == (interface == "asgi")]


def _rows(title: str, task: Task, group: list[Contender], bars: dict[str, float]) -> list[Row]:
    if not group:
        return []
    found = {c.label: c.microseconds[task.name] for c in group}
    asides = {c.label: f", {statistics.median(c.rates[task.name]):.0f}/s" for c in group}
    return peer_rows(title, found, "µs", bars, asides)


def _chart(task: Task, contenders: list[Contender]) -> Chart:
    found = {c.label: c.microseconds[task.name] for c in contenders}
    title = f"CPU per request, {task.title}, 1 worker"
    return bar_chart(f"http-{task.name}", title, "µs, median and range", found)


MEASUREMENT = Measurement("http", 110, run)
