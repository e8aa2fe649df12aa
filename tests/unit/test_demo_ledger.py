"""The ledger follows deploys and workers by the events alone."""

import pytest

from sengu.control.api import Record
from sengu.demo.ledger import Kill, Ledger
from sengu.demo.request import Request, decode_line, encode_line

OFFSET = 1_700_000_000.0


class Told:
    """A ledger, and a way to tell it events at moments of the monotonic clock."""

    def __init__(self) -> None:
        self.ledger = Ledger(OFFSET)
        self._count = 0

    def tell(self, at: float, kind: str, **fields: object) -> None:
        self._count += 1
        self.ledger.add_event(Record(self._count, OFFSET + at, kind, f"it {kind}", fields))

    def start(self, at: float, worker: int, generation: int, slot: int = 0) -> None:
        self.tell(
            at, "worker_started", worker=worker, generation=generation, slot=slot, pid=worker + 100
        )
        self.tell(at, "worker_ready", worker=worker, reason="said READY=1")

    def conclude(self, at: float, generation: int, outcome: str = "succeeded") -> None:
        self.tell(at, "deploy_concluded", generation=generation, outcome=outcome, reason="so")


@pytest.fixture
def told() -> Told:
    """Generation 1 serves version ash with a worker."""
    told = Told()
    told.ledger.announce("ash")
    told.tell(0.0, "deploy_requested", by="start")
    told.start(0.1, worker=1, generation=1)
    told.conclude(0.2, 1)
    return told


def test_the_first_generation_has_no_elders(told: Told) -> None:
    deploy = told.ledger.deploys[1]
    assert (deploy.version, deploy.outcome) == ("ash", "succeeded")
    assert deploy.concluded - deploy.asked == pytest.approx(0.2)
    assert deploy.retired == deploy.concluded


def test_a_deploy_lasts_until_the_last_elder_is_gone(told: Told) -> None:
    told.ledger.announce("birch")
    told.tell(1.0, "deploy_requested", by="the control API")
    told.start(1.1, worker=2, generation=2)
    told.conclude(1.2, 2)
    told.tell(1.2, "worker_stopping", worker=1, signal=15, reason="generation 2 serves instead")
    assert told.ledger.workers[1].state == "stopping"
    assert told.ledger.deploys[2].retired == 0
    told.tell(1.5, "worker_exited", worker=1, how="exit status 0")
    told.tell(1.5, "generation_retired", generation=1)
    assert told.ledger.deploys[2].retired == pytest.approx(1.5)


def test_a_refused_deploy_leaves_the_ready_workers_ready(told: Told) -> None:
    told.ledger.announce("broken")
    told.tell(1.0, "worker_started", worker=2, generation=2, slot=0, pid=102)
    told.tell(1.1, "worker_exited", worker=2, how="exit status 1")
    told.conclude(1.2, 2, "aborted")
    told.tell(1.2, "generation_retired", generation=2)
    assert not told.ledger.deploys[2].succeeded
    assert [worker.pid for worker in told.ledger.ready_workers(1)] == [101]


def test_a_killed_worker_is_replaced_by_the_next_one_in_its_slot(told: Told) -> None:
    (worker,) = told.ledger.ready_workers(1)
    kill = Kill(worker, 2.0, 2.001)
    told.ledger.kills.append(kill)
    told.tell(2.0, "worker_exited", worker=1, how="signal KILL")
    told.start(2.03, worker=2, generation=1, slot=1)
    assert not kill.replaced
    told.start(2.04, worker=3, generation=1, slot=0)
    assert kill.replaced == pytest.approx(2.04)


def test_an_answer_counts_for_a_moment_only_when_it_was_asked_for_later() -> None:
    ledger = Ledger(OFFSET)
    ledger.add_request(Request(1.0, 1.0, 1.2, version="ash"))
    assert ledger.has_answer("ash", after=0.9)
    assert not ledger.has_answer("ash", after=1.1)
    assert not ledger.has_answer("birch", after=0.9)


def test_who_answers_now_is_who_answered_in_the_last_second() -> None:
    ledger = Ledger(OFFSET)
    ledger.add_request(Request(1.0, 1.0, 1.2, version="ash"))
    ledger.add_request(Request(2.0, 2.0, 2.1, version="birch"))
    assert ledger.answering(2.15) == {"ash": 1, "birch": 1}
    assert ledger.answering(2.5) == {"birch": 1}


@pytest.mark.parametrize("message", [Request(1.0, 0.0, 2.0, detail="a\nb"), 17])
def test_what_the_clients_tell_is_one_line(message: Request | int) -> None:
    line = encode_line(message).decode()
    assert line.count("\n") == 1
    assert decode_line(line) == message
