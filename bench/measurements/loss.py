"""A deploy every second under load: what is lost, and what the others feel of it."""

import statistics
import sys
from typing import NamedTuple

from bench.deployer import Deployer
from bench.load import Ab, Load
from bench.managers.available import missing_notes, present
from bench.managers.base import Order
from bench.managers.deploying import Deploying
from bench.managers.sengu import Sengu
from bench.managers.start_server import StartServer
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, significant, spread
from bench.session import EXAMPLES, Session
from tests.ports import free_port

_MOST_P99_RATIO = 1.5
_AB = Ab(connections=20)

HOW = """\
`ab -r -l -c 20`, a connection for each request, against one TCP listener on loopback: {requests}
requests for each case, in {rounds} rounds. In each round all cases run without deploys and with
one every second. The programs: `examples/hello/server.py`, and a fast HTTP worker in C.
start_server has one worker (with `--interval 0`), and gets a few words of shell before the Python
program, which wants its socket at descriptor 3 with `LISTEN_FDS`. p99 is ab's, the median of the
rounds; the ratio is with deploys over without, the median of the rounds."""

# What start_server does not do: hand the socket over as sd_listen_fds(3) describes.
_LISTEN_FDS = 'exec 3<&"${SERVER_STARTER_PORT##*=}"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


class Case(NamedTuple):
    """Who runs what with how many workers."""

    kind: type[Deploying]
    program: str
    command: tuple[str, ...]
    workers: int
    requests: int

    @property
    def title(self) -> str:
        plural = "s" if self.workers > 1 else ""
        return f"{self.program}, {self.workers} worker{plural}"

    @property
    def label(self) -> str:
        return f"{self.kind.label}: {self.title}"


class Findings:
    """What was seen of one case over all rounds."""

    def __init__(self) -> None:
        self.quiet: list[Load] = []
        self.busy: list[Load] = []
        self.deploys = 0

    def p99(self, loads: list[Load]) -> float:
        return statistics.median(load.p99_milliseconds for load in loads)

    @property
    def ratio(self) -> float:
        """The median over the rounds, in each of which both came right after each other."""
        rounds = zip(self.busy, self.quiet, strict=True)
        return statistics.median(b.p99_milliseconds / q.p99_milliseconds for b, q in rounds)


def run(session: Session) -> Result:
    rounds = session.pick(5, 1)
    cases = _cases(session)
    found = {case.label: Findings() for case in cases}
    for number in range(rounds):
        for case in cases:
            session.say(f"round {number + 1} of {rounds}, {case.label}")
            _run_case(session, case, found[case.label])
    return _result(cases, found, rounds)


def _cases(session: Session) -> list[Case]:
    python = (sys.executable, str(EXAMPLES / "hello" / "server.py"))
    compiled = (session.program("http_worker"),)
    python_requests, compiled_requests = session.pick((20_000, 20_000), (1_000, 2_000))
    cases = [
        Case(Sengu, "Python", python, 1, python_requests),
        Case(Sengu, "Python", python, 4, python_requests),
        Case(Sengu, "C", compiled, 1, compiled_requests),
        Case(Sengu, "C", compiled, 4, compiled_requests),
    ]
    if StartServer in present(StartServer):
        shimmed = ("/bin/sh", "-c", _LISTEN_FDS, "sh", *python)
        cases.insert(1, Case(StartServer, "Python", shimmed, 1, python_requests))
        cases.insert(4, Case(StartServer, "C", compiled, 1, compiled_requests))
    return cases


def _run_case(session: Session, case: Case, found: Findings) -> None:
    directory = session.fresh_directory()
    port = free_port()
    with case.kind(directory, Order(case.command, case.workers, port)) as manager:
        manager.wait_generation(1)
        _AB.run(port, 1000, directory)  # warm
        # Now this first, now that, so that neither gains by its place.
        turns = ("quiet", "busy") if len(found.busy) % 2 == 0 else ("busy", "quiet")
        for turn in turns:
            if turn == "quiet":
                found.quiet.append(_AB.run(port, case.requests, directory))
                continue
            with Deployer(manager.request_deploy) as deployer:
                found.busy.append(_AB.run(port, case.requests, directory))
            manager.wait_generation(1 + deployer.count)
            found.deploys += deployer.count


def _result(cases: list[Case], found: dict[str, Findings], rounds: int) -> Result:
    rows = []
    for case in cases:
        if case.kind is Sengu:
            peer = found.get(f"{StartServer.label}: {case.title}")
            rows += _rows(case, found[case.label], peer)
    chart = Chart(
        name="loss-p99",
        kind="bars",
        title="p99 with a deploy every second, over p99 without",
        x_label="ratio",
        y_label="",
        series=[Series(label, [findings.ratio]) for label, findings in found.items()],
    )
    samples = {}
    for label, findings in found.items():
        for what, loads in (("without", findings.quiet), ("with", findings.busy)):
            samples[f"{label}, p99 ms {what} deploys"] = [x.p99_milliseconds for x in loads]
            samples[f"{label}, slowest ms {what} deploys"] = [x.slowest_milliseconds for x in loads]
            samples[f"{label}, requests/s {what} deploys"] = [x.requests_per_second for x in loads]
    how = HOW.format(rounds=rounds, requests=f"{cases[0].requests * rounds:,}".replace(",", " "))
    return Result("Loss under load", how, rows, [chart], missing_notes(StartServer), samples)


def _rows(case: Case, ours: Findings, peer: Findings | None) -> list[Row]:
    failed = sum(load.failed for load in ours.busy)
    ratio = ours.ratio
    return [
        Row(
            f"{case.title}: failed requests",
            _failures(ours),
            f"start_server: {_failures(peer)}" if peer else "",
            bar="0",
            reached=failed == 0,
        ),
        Row(
            f"{case.title}: p99 without → with deploys",
            _change(ours),
            f"start_server: {_change(peer)}" if peer else "",
            f"{significant(ratio)} ×"
            + (f" (start_server: {significant(peer.ratio)} ×)" if peer else ""),
            f"≤ {_MOST_P99_RATIO} ×",
            ratio <= _MOST_P99_RATIO,
        ),
        Row(
            f"{case.title}: throughput with deploys",
            _rate(ours),
            f"start_server: {_rate(peer)}" if peer else "",
        ),
    ]


def _failures(findings: Findings) -> str:
    total = sum(load.requests for load in findings.busy)
    failed = sum(load.failed for load in findings.busy)
    return f"{failed} of {total}, {findings.deploys} deploys"


def _rate(findings: Findings) -> str:
    return spread([load.requests_per_second for load in findings.busy], "/s")


def _change(findings: Findings) -> str:
    before, after = findings.p99(findings.quiet), findings.p99(findings.busy)
    return f"{significant(before)} → {significant(after)} ms"


MEASUREMENT = Measurement("loss", 50, run)
