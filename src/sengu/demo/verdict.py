"""The verdict: what was lost, what was in the hands of a killed worker, how long it all took.

Pure arithmetic over what the ledger holds. A worker of the demonstration serves one request at a
time, so killing one with -9 may break one request, and no deploy may break any.
"""

import math
from collections.abc import Sequence

import msgspec

from sengu.cli.text import plural
from sengu.demo.ledger import Deploy, Kill, Ledger
from sengu.demo.request import Request

# What the killed process has held breaks at once; the client's process may have to wait for its
# turn on a busy machine before it sees that.
_NOTICED_SECONDS = 5.0


class Latency(msgspec.Struct, frozen=True):
    """Seconds, of the answered requests; `slowest` is None when there were none."""

    median: float = math.nan
    p99: float = math.nan
    slowest: Request | None = None


class Verdict(msgspec.Struct, frozen=True):
    """`lost` and `in_hand` are all the requests that failed. `problems` are what else was wrong."""

    sent: int
    answered: int
    lost: tuple[Request, ...]
    in_hand: tuple[Request, ...]
    latency: Latency
    latency_in_deploys: Latency
    problems: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.lost and not self.problems and self.answered > 0


def judge(ledger: Ledger) -> Verdict:
    """The verdict over everything that is in the ledger."""
    requests = ledger.requests
    deploys = list(ledger.deploys.values())
    failed = [request for request in requests if request.failed]
    in_hand = find_in_hand(failed, ledger.kills)
    during = [request for request in requests if any(_is_during(request, d) for d in deploys)]
    return Verdict(
        sent=len(requests) if ledger.sent is None else ledger.sent,
        answered=len(requests) - len(failed),
        lost=tuple(request for request in failed if request not in in_hand),
        in_hand=tuple(in_hand),
        latency=measure(requests),
        latency_in_deploys=measure(during),
        problems=(*ledger.problems, *find_problems(ledger)),
    )


def find_in_hand(failed: Sequence[Request], kills: Sequence[Kill]) -> list[Request]:
    """Those that broke because their worker was killed: at most one for each kill."""
    found: list[Request] = []
    for kill in kills:
        broken = [r for r in failed if _broke_at(r, kill) and r not in found]
        if broken:
            found.append(min(broken, key=lambda request: request.ended))
    return found


def _broke_at(request: Request, kill: Kill) -> bool:
    """Sent to a worker that lived, and cut when it died."""
    return (
        request.was_in_hand
        and request.begun <= kill.gone
        and kill.at <= request.ended <= kill.gone + _NOTICED_SECONDS
    )


def find_problems(ledger: Ledger) -> list[str]:
    """What the numbers themselves show to be wrong."""
    problems = []
    told = len(ledger.requests)
    if ledger.sent is None:
        problems.append("the clients ended without saying how many requests they had sent")
    elif ledger.sent != told:
        problems.append(f"{ledger.sent} requests were sent, but the fate of {told} is known")
    known = set(ledger.versions)
    for deploy in ledger.deploys.values():
        if not deploy.succeeded:
            known.discard(deploy.version)
        elif stale := _count_stale(ledger.requests, deploy):
            answers = plural(stale, "answer")
            problems.append(f"{answers} came from a version older than {deploy.version}")
    for request in ledger.requests:
        if not request.failed and request.version not in known:
            problems.append(f"version {request.version!r} answered, which was never deployed")
            break
    return problems


def _count_stale(requests: Sequence[Request], deploy: Deploy) -> int:
    """Answers of an older generation to requests that began when nothing was left of it."""
    return sum(
        not request.failed and request.generation < deploy.generation
        for request in requests
        if deploy.retired and request.begun > deploy.retired
    )


def _is_during(request: Request, deploy: Deploy) -> bool:
    end = deploy.retired or deploy.concluded
    return request.begun <= end and request.ended >= deploy.asked


def measure(requests: Sequence[Request]) -> Latency:
    """Latency of those that were answered."""
    answered = sorted((r for r in requests if not r.failed), key=lambda request: request.seconds)
    if not answered:
        return Latency()
    return Latency(
        median=answered[_rank(0.50, len(answered))].seconds,
        p99=answered[_rank(0.99, len(answered))].seconds,
        slowest=answered[-1],
    )


def _rank(share: float, count: int) -> int:
    """Index of the smallest value that is not below that share of all (nearest rank)."""
    return max(0, math.ceil(share * count) - 1)
