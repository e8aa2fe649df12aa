"""What counts as lost, and what as broken in the hands of a killed worker."""

import math

import msgspec
import pytest

from sengu.demo.ledger import Deploy, Kill, Ledger, Worker
from sengu.demo.request import Fault, Request, Stage
from sengu.demo.verdict import judge, measure

KILLED_AT = 100.0
GONE_AT = 100.01


def answered(begun: float, seconds: float = 0.005, version: str = "ash") -> Request:
    return Request(begun, begun, begun + seconds, version=version, generation=1, pid=7)


def cut(begun: float, ended: float, stage: Stage = Stage.RECEIVE) -> Request:
    return Request(begun, begun, ended, stage, Fault.CUT, "connection reset")


AT_THE_KILL = cut(99.998, 100.005)


def ledger_of(*requests: Request, kills: int = 1) -> Ledger:
    """A service of one version, of which a worker was killed every ten seconds."""
    ledger = Ledger(clock_offset=0.0)
    ledger.announce("ash")
    for request in requests:
        ledger.add_request(request)
    ledger.sent = len(requests)
    for number in range(kills):
        later = 10.0 * number
        ledger.kills.append(Kill(Worker(1, number, 7), KILLED_AT + later, GONE_AT + later))
    return ledger


def test_a_run_in_which_all_were_answered_is_good() -> None:
    verdict = judge(ledger_of(answered(1), answered(2), kills=0))
    assert verdict.is_good
    assert (verdict.sent, verdict.answered, verdict.lost, verdict.in_hand) == (2, 2, (), ())


@pytest.mark.parametrize(
    "broken",
    [
        AT_THE_KILL,
        cut(99.0, KILLED_AT),
        cut(99.998, 100.005, Stage.SEND),
        # accepted before, but the client came to know it late
        cut(100.005, 100.4),
    ],
)
def test_a_request_that_broke_with_the_killed_worker_is_not_lost(broken: Request) -> None:
    verdict = judge(ledger_of(answered(1), broken))
    assert verdict.is_good
    assert verdict.in_hand == (broken,)
    assert verdict.sent == verdict.answered + 1


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(cut(99.9, 99.99), id="broke before the kill"),
        pytest.param(cut(100.02, 100.03), id="begun when the worker was gone"),
        pytest.param(cut(99.9, 106.0), id="broke long after the kill"),
        pytest.param(
            Request(99.9, 0.0, 100.005, Stage.CONNECT, Fault.REFUSED), id="met no listener"
        ),
        pytest.param(
            Request(99.9, 99.9, 100.005, Stage.RECEIVE, Fault.TIMEOUT), id="was never answered"
        ),
        pytest.param(
            Request(99.9, 99.9, 100.005, Stage.ANSWER, Fault.STATUS, "500"), id="got an error"
        ),
    ],
)
def test_any_other_failure_is_a_loss(broken: Request) -> None:
    verdict = judge(ledger_of(answered(1), broken))
    assert not verdict.is_good
    assert (verdict.lost, verdict.in_hand) == ((broken,), ())


def test_a_failure_without_a_kill_is_a_loss() -> None:
    assert judge(ledger_of(answered(1), AT_THE_KILL, kills=0)).lost == (AT_THE_KILL,)


def test_a_killed_worker_excuses_one_request_and_no_more() -> None:
    second = cut(99.998, 100.006)
    verdict = judge(ledger_of(answered(1), second, AT_THE_KILL))
    assert verdict.in_hand == (AT_THE_KILL,)
    assert verdict.lost == (second,)
    assert not verdict.is_good


def test_each_of_two_killed_workers_excuses_one() -> None:
    later = cut(109.998, 110.005)
    verdict = judge(ledger_of(answered(1), AT_THE_KILL, later, kills=2))
    assert verdict.in_hand == (AT_THE_KILL, later)
    assert verdict.is_good


def test_a_run_without_an_answer_is_not_good() -> None:
    assert not judge(ledger_of(kills=0)).is_good


@pytest.mark.parametrize("sent", [None, 3])
def test_requests_of_unknown_fate_are_a_problem(sent: int | None) -> None:
    ledger = ledger_of(answered(1), answered(2), kills=0)
    ledger.sent = sent
    verdict = judge(ledger)
    assert not verdict.is_good
    assert len(verdict.problems) == 1


def test_what_the_story_found_wrong_makes_the_verdict_bad() -> None:
    ledger = ledger_of(answered(1), kills=0)
    ledger.problems.append("the killed worker was not replaced")
    assert not judge(ledger).is_good


def deployed(**changes: object) -> Ledger:
    """Version ash, then birch as generation 2, whose elders were gone at 10.3."""
    ledger = ledger_of(answered(9), answered(10.25), kills=0)
    ledger.announce("birch")
    deploy = Deploy("birch", 2, "succeeded", asked=10.0, concluded=10.2, retired=10.3)
    ledger.deploys[2] = msgspec.structs.replace(deploy, **changes)
    return ledger


def test_elders_may_answer_until_they_are_gone() -> None:
    assert judge(deployed()).is_good


def test_an_answer_of_a_generation_that_is_gone_is_a_problem() -> None:
    ledger = deployed()
    ledger.add_request(answered(10.4))
    ledger.sent = 3
    assert judge(ledger).problems == ("1 answer came from a version older than birch",)


def test_an_answer_of_a_version_that_was_refused_is_a_problem() -> None:
    ledger = deployed(outcome="aborted", retired=0.0)
    ledger.add_request(answered(10.4, version="birch"))
    ledger.sent = 3
    (problem,) = judge(ledger).problems
    assert "'birch' answered" in problem


def test_latency_in_deploys_is_of_requests_that_met_one() -> None:
    ledger = deployed()
    slow = answered(9.9, seconds=0.2)
    ledger.add_request(slow)
    ledger.sent = 3
    verdict = judge(ledger)
    assert verdict.latency.slowest == slow
    assert verdict.latency.median == pytest.approx(0.005)
    assert verdict.latency_in_deploys.p99 == pytest.approx(0.2)


def test_percentiles_are_nearest_ranks() -> None:
    latency = measure([answered(0, seconds) for seconds in range(100, 0, -1)])
    assert (latency.median, latency.p99) == (50, 99)
    assert latency.slowest is not None
    assert latency.slowest.seconds == 100


def test_failures_have_no_latency() -> None:
    latency = measure([cut(1, 2)])
    assert latency.slowest is None
    assert math.isnan(latency.median)
