"""Obituaries: what is kept of those who died, and what is found by what they had in hand."""

import pytest

from sengu.model import events as ev
from sengu.model.observed import Generation, Observed, Phase, Worker
from sengu.planner import reduce
from sengu.posix.swap_file import make_swap_file
from sengu.wire.obituaries import Obituary, add, decode, encode, latest_with
from sengu.worker.board import Board
from sengu.worker.obituaries import find
from tests.unit.support_steps import make_spec


def obituary(worker: int, *in_hand: str, words: str = "") -> Obituary:
    return Obituary(worker, in_hand or ("job",), "signal SEGV", words, 5.0)


def test_what_was_written_is_read() -> None:
    written = (obituary(1, "a", "b", words="Fatal\n…"), obituary(2))
    assert decode(encode(written)) == written


@pytest.mark.parametrize("data", [b"", b"{", b'[{"worker":"one"}]', b'{"version":2}'])
def test_what_nobody_has_written_or_another_version_has_is_none(data: bytes) -> None:
    assert decode(data) == ()


def test_the_last_32_are_kept_with_the_end_of_their_words() -> None:
    kept: tuple[Obituary, ...] = ()
    for worker in range(1, 41):
        kept = add(kept, obituary(worker, words="é" * 5000 + str(worker)))
    assert [one.worker for one in kept] == list(range(9, 41))
    assert all(len(one.last_words.encode()) in (4095, 4096) for one in kept)
    assert kept[-1].last_words.endswith("é40")


def test_a_worker_dies_once_and_its_first_obituary_counts() -> None:
    first = obituary(1, words="why")
    assert add((first, obituary(2)), obituary(1)) == (first, obituary(2))


def test_the_latest_with_the_whole_request_is_found() -> None:
    known = (obituary(1, "a", "b"), obituary(2, "a"), obituary(3, "abc"))
    assert latest_with(known, "a") == known[1]
    assert latest_with(known, "b") == known[0]
    assert latest_with(known, "ab") is None


@pytest.mark.parametrize("text", ["job 17", "Zoë\tlivre", "x" * 300, "a?b"])
def test_it_is_found_by_the_text_that_a_lane_was_given(text: str) -> None:
    board = Board(memoryview(bytearray(256)), 0, 1)
    board.lanes[0].begin(1.0, text.encode())
    file = make_swap_file("test")
    assert find(file, text) is None
    dead = obituary(7, board.lanes[0].read().request)
    file.write(encode([dead]))
    assert find(file, text) == dead
    assert find(file, "other") is None


HUNG = ev.WorkerStopping(1, 6, 9.0, "it hangs", failed=True)
GONE_BY_DEPLOY = ev.WorkerStopping(1, 15, 9.0, "another serves instead")
LATE = ev.WorkerKilled(1, "still there")


@pytest.mark.parametrize(
    ("facts", "condemned"),
    [
        ((), ""),
        ((HUNG,), "it hangs"),
        ((HUNG, LATE), "it hangs"),
        ((GONE_BY_DEPLOY,), ""),
        ((GONE_BY_DEPLOY, LATE), "still there"),
    ],
)
def test_why_somebody_was_killed_is_known_until_he_is_gone(
    facts: tuple[ev.WorkerStopping | ev.WorkerKilled, ...], condemned: str
) -> None:
    worker = Worker(1, 1, 0, 4711, Phase.READY, 0.0)
    observed = Observed(1, generations={1: Generation(1, prepared=True)}, workers={1: worker})
    for fact in facts:
        observed = reduce(make_spec(), observed, fact, 1.0)
    assert observed.workers[1].condemned == condemned
