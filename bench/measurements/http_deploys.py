"""A web server deploys every second under load: what fails, and what the others feel of it."""

import statistics
from typing import NamedTuple

from bench.compare import bar_chart
from bench.deployer import Deployer
from bench.load import Ab, Generator, Load, Wrk
from bench.registry import Measurement
from bench.results import Result, Row, significant
from bench.session import Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site
from bench.webservers.gunicorn import Gunicorn, GunicornThreads
from bench.webservers.sengu import Sengu

_WORKERS = 2
_MOST_P99_RATIO = 1.5
# What each makes is a kind of client of its own: new connections, and two kinds of kept ones.
_LOADS: tuple[Generator, ...] = (
    Ab(connections=20),
    Ab(connections=200, keeps_alive=True),
    Wrk(connections=50),
)

HOW = """\
A hello, {workers} workers, one TCP listener on loopback. {rounds} rounds; in each round every load
runs for {quiet} s without deploys and for {busy} s with one every second, in turns. The loads:
`ab -c 20`, a connection for each request; `ab -k -c 200`, kept connections, where a close between
two requests is forgiven; `wrk -c 50`, where it is not: a failed request of wrk is also a connection
that was closed while it waited. sengu's deploys are `POST /v1/reload` with `wait`, and each of them
succeeded: the application was imported anew. gunicorn gets HUP, with threaded workers where
connections are kept, for {peer_rounds} rounds of {peer_busy} s. p99 is that of the load's own
program, the median of the rounds; the ratio is with deploys over without, the median of the
rounds."""


class Case(NamedTuple):
    """Who is deployed under which load."""

    kind: type[Sengu] | type[Gunicorn]
    load: Generator
    rounds: int
    quiet_seconds: int
    busy_seconds: int

    @property
    def label(self) -> str:
        return f"{self.kind.label}, {self.load.title}"


class Findings:
    """What was seen of one case over all rounds."""

    def __init__(self) -> None:
        self.quiet: list[Load] = []
        self.busy: list[Load] = []
        self.deploys = 0

    @property
    def failed(self) -> int:
        return sum(load.failed for load in self.busy)

    @property
    def ratios(self) -> list[float]:
        """Of each round, in which both came right after each other."""
        rounds = zip(self.busy, self.quiet, strict=True)
        return [b.p99_milliseconds / q.p99_milliseconds for b, q in rounds]

    def failures(self) -> str:
        requests = sum(load.requests for load in self.busy)
        return f"{self.failed} of {requests}, {self.deploys} deploys"

    def p99(self) -> str:
        before, after = (
            statistics.median(load.p99_milliseconds for load in loads)
            for loads in (self.quiet, self.busy)
        )
        return f"{significant(before)} → {significant(after)} ms"

    def slowest(self) -> str:
        return f"{significant(max(load.slowest_milliseconds for load in self.busy))} ms"


def run(session: Session) -> Result:
    ours, theirs = session.pick(((6, 3, 10), (3, 3, 4)), ((1, 1, 2), (1, 1, 2)))
    cases = [Case(Sengu, load, *ours) for load in _LOADS]
    for load in _LOADS:
        is_kept = isinstance(load, Wrk) or (isinstance(load, Ab) and load.keeps_alive)
        peer = GunicornThreads if is_kept else Gunicorn
        if present(peer) and not session.is_quick:
            cases.append(Case(peer, load, *theirs))
    found = {case.label: Findings() for case in cases}
    for number in range(max(case.rounds for case in cases)):
        for case in cases:
            if number < case.rounds:
                session.say(f"round {number + 1} of {case.rounds}, {case.label}")
                _run_case(session, case, found[case.label])
    how = HOW.format(
        **{"workers": _WORKERS, "rounds": ours[0], "quiet": ours[1], "busy": ours[2]},
        **{"peer_rounds": theirs[0], "peer_busy": theirs[2]},
    )
    return _result(how, cases, found)


def _run_case(session: Session, case: Case, found: Findings) -> None:
    with case.kind(session.fresh_directory(), Site(workers=_WORKERS)) as server:
        server.wait_answer()
        case.load.run_for(server.port, 1, server.directory)  # warm
        # Now this first, now that, so that neither gains by its place.
        turns = ("quiet", "busy") if len(found.busy) % 2 == 0 else ("busy", "quiet")
        for turn in turns:
            if turn == "quiet":
                load = case.load.run_for(server.port, case.quiet_seconds, server.directory)
                found.quiet.append(load)
                continue
            with Deployer(server.request_deploy) as deployer:
                load = case.load.run_for(server.port, case.busy_seconds, server.directory)
                found.busy.append(load)
            found.deploys += deployer.count


def _result(how: str, cases: list[Case], found: dict[str, Findings]) -> Result:
    rows = []
    for case in cases:
        if case.kind is Sengu:
            peer = next((c for c in cases if c.load is case.load and c.kind is not Sengu), None)
            rows += _rows(case, found[case.label], peer, found[peer.label] if peer else None)
    chart = bar_chart(
        "http-deploys-p99",
        "p99 with a deploy every second, over p99 without",
        "ratio, median and range",
        {label: findings.ratios for label, findings in found.items()},
    )
    samples: dict[str, list[float]] = {}
    for label, findings in found.items():
        for what, loads in (("without", findings.quiet), ("with", findings.busy)):
            samples[f"{label}, p99 ms {what} deploys"] = [x.p99_milliseconds for x in loads]
            samples[f"{label}, slowest ms {what} deploys"] = [x.slowest_milliseconds for x in loads]
            samples[f"{label}, requests/s {what} deploys"] = [x.requests_per_second for x in loads]
            samples[f"{label}, failed {what} deploys"] = [x.failed for x in loads]
    peers = (Gunicorn, GunicornThreads)
    return Result(
        title="Deploys of a web server under load",
        how=how,
        rows=rows,
        charts=[chart],
        notes=missing_notes(*peers),
        samples=samples,
        versions=versions(Sengu, *peers),
    )


def _rows(case: Case, ours: Findings, peer: Case | None, theirs: Findings | None) -> list[Row]:
    def beside(text: str) -> str:
        return f"{peer.kind.label}: {text}" if peer else ""

    ratio = statistics.median(ours.ratios)
    their_ratio = statistics.median(theirs.ratios) if theirs else 0.0
    return [
        Row(
            f"{case.load.title}: failed requests",
            ours.failures(),
            beside(theirs.failures() if theirs else ""),
            bar="0",
            reached=ours.failed == 0,
        ),
        Row(
            f"{case.load.title}: p99 without → with deploys",
            ours.p99(),
            beside(theirs.p99() if theirs else ""),
            f"{significant(ratio)} ×"
            + (f" (theirs: {significant(their_ratio)} ×)" if peer else ""),
            f"≤ {_MOST_P99_RATIO} ×",
            ratio <= _MOST_P99_RATIO,
        ),
        Row(
            f"{case.load.title}: slowest request with deploys",
            ours.slowest(),
            beside(theirs.slowest() if theirs else ""),
        ),
    ]


MEASUREMENT = Measurement("http-deploys", 120, run)
