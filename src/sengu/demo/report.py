"""What is told at the end: the verdict in words, and its chart.

Pure but for rich's `Text`, which says what is coloured. Used by `main`.
"""

from collections.abc import Iterator, Sequence

from rich.text import Text

from sengu.cli.text import plural
from sengu.demo.chart import Chart, Mark, MarkKind, Point, show_seconds
from sengu.demo.ledger import Deploy, Ledger
from sengu.demo.request import Request
from sengu.demo.verdict import Latency, Verdict

_SHOWN_LOSSES = 10


def make_chart(ledger: Ledger, verdict: Verdict, cast: str) -> Chart:
    """Latency over time from the first request on; `cast` says who took part."""
    requests = ledger.requests
    start = min((request.begun for request in requests), default=0.0)
    end = max((request.ended for request in requests), default=1.0)
    series = {version: number for number, version in enumerate(ledger.versions)}
    deploys = sum(d.succeeded for d in ledger.deploys.values()) - 1  # the first was the start
    return Chart(
        title=f"{plural(max(0, deploys), 'deploy')} under load: "
        f"{verdict.sent:,} requests, {len(verdict.lost)} lost",
        notes=(cast, _legend(verdict)),
        seconds=max(end - start, 0.001),
        points=tuple(
            Point(r.begun - start, r.seconds, series.get(r.version, 0))
            for r in requests
            if not r.failed
        ),
        marks=tuple(_marks(ledger, start)),
        faults=tuple(Point(r.begun - start, r.seconds) for r in requests if r.failed),
        y_title="latency (logarithmic)",
    )


def _legend(verdict: Verdict) -> str:
    dots = "a dot is a request, its colour the version that answered"
    if verdict.lost:
        return f"{dots}; a cross is one that failed"
    return f"{dots}; the cross: the killed worker had it in hand" if verdict.in_hand else dots


def _marks(ledger: Ledger, start: float) -> Iterator[Mark]:
    for deploy in list(ledger.deploys.values())[1:]:
        kind = MarkKind.GOOD if deploy.succeeded else MarkKind.REFUSED
        label = deploy.version if deploy.succeeded else f"{deploy.version}: {deploy.outcome}"
        yield Mark(deploy.concluded - start, label, kind, since=deploy.asked - start)
    for kill in ledger.kills:
        end = kill.replaced or kill.gone
        yield Mark(end - start, "kill -9", MarkKind.KILL, since=kill.at - start)


def tell_verdict(ledger: Ledger, verdict: Verdict) -> Iterator[Text]:
    """The verdict, line by line."""
    yield _requests_line(verdict)
    yield from _loss_lines(verdict)
    yield Text(_latency_words(ledger, verdict))
    yield from _deploy_lines(list(ledger.deploys.values())[1:])
    for kill in ledger.kills:
        if kill.replaced:
            took = show_seconds(kill.replaced - kill.at)
            yield Text(f"the killed worker was replaced, and ready, after {took}")
    for problem in verdict.problems:
        yield Text(problem, "bold red")


def _requests_line(verdict: Verdict) -> Text:
    line = Text(f"{verdict.sent:,} requests sent, {verdict.answered:,} answered, ")
    return line + Text(f"{len(verdict.lost)} lost", "bold red" if verdict.lost else "bold green")


def _loss_lines(verdict: Verdict) -> Iterator[Text]:
    if verdict.in_hand:
        count = plural(len(verdict.in_hand), "request")
        yield Text(f"{count} broke in the hands of the killed worker, which serves one at a time")
    for request in verdict.lost[:_SHOWN_LOSSES]:
        yield Text(f"lost: {_describe(request)}", "red")
    if (more := len(verdict.lost) - _SHOWN_LOSSES) > 0:
        yield Text(f"and {more} more", "red")


def _describe(request: Request) -> str:
    return f"{request.fault} while {request.stage}, after {show_seconds(request.seconds)}" + (
        f" ({request.detail})" if request.detail else ""
    )


def _latency_words(ledger: Ledger, verdict: Verdict) -> str:
    def words(latency: Latency) -> str:
        return f"median {show_seconds(latency.median)}, p99 {show_seconds(latency.p99)}"

    said = f"latency: {words(verdict.latency)}; during deploys: {words(verdict.latency_in_deploys)}"
    slowest = verdict.latency.slowest
    if slowest is None:
        return said
    moment = slowest.begun - min(request.begun for request in ledger.requests)
    return f"{said}; slowest {show_seconds(slowest.seconds)}, {moment:.1f} s after the first"


def _deploy_lines(deploys: Sequence[Deploy]) -> Iterator[Text]:
    good = [deploy.concluded - deploy.asked for deploy in deploys if deploy.succeeded]
    if good:
        took = f"{show_seconds(min(good))} to {show_seconds(max(good))}"
        yield Text(f"{plural(len(good), 'deploy')} succeeded, in {took}")
    for deploy in deploys:
        if not deploy.succeeded:
            yield Text(f"the deploy of the {deploy.version} version was {deploy.outcome}")
