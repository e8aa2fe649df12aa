"""What becomes of a message, whatever happens to those who have it."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.consumers.model import judge
from sengu.consumers.model.judge import Delivered, Ending, Move, Origin, Outcome, admit, conclude
from sengu.consumers.model.spec import ConsumerSpec
from tests.unit.support_consumers import (
    DONE,
    FAILED,
    KILL,
    REJECTED,
    REQUEUED,
    TIMED_OUT,
    Happening,
    Journey,
    spec_of,
)

SPECS = st.builds(
    spec_of, st.integers(0, 6), type=st.sampled_from(["quorum", "classic"]), ack_late=st.just(True)
)
FATES = st.lists(st.sampled_from([KILL, FAILED, TIMED_OUT]), min_size=1, max_size=6)


def of_main(**headers: object) -> Delivered:
    return Delivered(
        {name.replace("_", "-"): value for name, value in headers.items()}, "", "", False
    )


def moved(move: Move | None) -> Move:
    assert move is not None
    return move


@given(SPECS, FATES)
def test_what_never_works_is_dead_after_a_bounded_number_of_runs(
    spec: ConsumerSpec, fates: list[Happening]
) -> None:
    journey = Journey(spec)
    journey.travel(itertools.cycle(fates))
    assert journey.queue == "downloads.dead"
    # At most two die with it before it is a suspect, and two before it is dead, at each try.
    assert journey.runs <= 4 * (spec.retrying.retries + 1)
    assert journey.deliveries <= 3 * journey.runs + 1


@given(SPECS, FATES)
def test_what_went_wrong_no_oftener_than_it_is_retried_is_not_dead(
    spec: ConsumerSpec, fates: list[Happening]
) -> None:
    journey = Journey(spec)
    journey.travel(iter([*fates[: spec.retrying.retries], DONE]))
    assert journey.queue == ""


@given(SPECS, st.sampled_from([FAILED, TIMED_OUT]))
def test_what_always_fails_runs_once_more_than_it_has_retries(
    spec: ConsumerSpec, ending: Ending
) -> None:
    journey = Journey(spec)
    journey.travel(itertools.repeat(ending))
    assert journey.runs == spec.retrying.retries + 1
    assert journey.queue == "downloads.dead"
    assert journey.headers[judge.FAILURES] == journey.runs
    assert journey.headers[judge.REASON] == ending.outcome
    assert journey.headers[judge.ERROR] == ending.error


@pytest.mark.parametrize(("kind", "before_suspected"), [("quorum", 2), ("classic", 1)])
@pytest.mark.parametrize("retries", range(7))
def test_what_always_kills_does_it_as_often_as_it_may_fail_but_is_surely_the_one(
    retries: int, kind: str, before_suspected: int
) -> None:
    journey = Journey(spec_of(retries, type=kind))
    journey.travel(itertools.repeat(KILL))
    assert journey.runs == max(retries + 1, before_suspected + 2)
    assert journey.queue == "downloads.dead"
    assert journey.headers[judge.REASON] == "killed its worker"
    assert journey.headers[judge.ERROR] == f"{journey.runs} workers died with it"


@given(SPECS, st.integers(0, 50), st.integers(0, 6))
def test_who_is_beside_a_killer_is_never_dead(
    spec: ConsumerSpec, times: int, failures: int
) -> None:
    """It comes back from its own queue, as often as others kill; alone it kills nobody."""
    journey = Journey(spec)

    def happenings() -> Iterator[Happening]:
        left, fails = times, min(failures, spec.retrying.retries)
        while left or fails:
            if left and not journey.is_suspect:
                left -= 1
                yield KILL
            elif fails:
                fails -= 1
                yield FAILED
            else:
                break
        yield DONE

    journey.travel(happenings())
    assert journey.queue == ""


def test_to_be_requeued_costs_nothing_and_forgives_nothing() -> None:
    journey = Journey(spec_of(retries=1))
    journey.travel(iter([*[REQUEUED] * 100, FAILED, *[REQUEUED] * 100, FAILED]))
    assert journey.queue == "downloads.dead"
    assert journey.runs == 202


def test_a_suspect_of_a_classic_queue_is_charged_for_all_its_kills() -> None:
    journey = Journey(spec_of(type="classic"))
    journey.travel(iter([*[KILL] * 4, FAILED, DONE]))
    assert journey.headers[judge.FAILURES] == 4
    assert journey.queue == ""


def test_a_suspect_that_is_requeued_is_charged_for_its_kills() -> None:
    delivered = Delivered({judge.DELIVERY_COUNT: 2}, "", "", True, Origin.SUSPECTS)
    move = moved(conclude(spec_of(), delivered, REQUEUED))
    assert move.queue == "downloads"
    assert move.headers[judge.FAILURES] == 2


def test_what_is_rejected_is_dead_at_once() -> None:
    journey = Journey(spec_of())
    journey.travel(iter([Ending(Outcome.REJECTED, "no url")]))
    assert (journey.queue, journey.runs) == ("downloads.dead", 1)
    assert journey.headers[judge.ERROR] == "no url"


def test_one_return_is_anybodys() -> None:
    assert admit(spec_of(), of_main(x_delivery_count=1)) is None
    assert moved(admit(spec_of(), of_main(x_delivery_count=2))).queue == "downloads.suspects"


def test_who_acknowledges_early_has_no_suspects() -> None:
    spec = spec_of(0, ack_late=False)
    assert admit(spec, Delivered({judge.DELIVERY_COUNT: 9}, "", "", True)) is None


def test_a_suspect_that_came_back_once_is_run_again_as_somebody_else_may_have_killed() -> None:
    delivered = Delivered(
        {judge.SUSPECTED: 9, judge.DELIVERY_COUNT: 1}, "", "", True, Origin.SUSPECTS
    )
    assert admit(spec_of(0), delivered) is None


def test_a_dead_one_has_the_last_words_of_its_worker() -> None:
    delivered = Delivered({judge.DELIVERY_COUNT: 2}, "", "", True, Origin.SUSPECTS)
    words = Ending(Outcome.KILLED, "signal 11", "Fatal Python error: Segmentation fault")
    move = moved(admit(spec_of(0), delivered, words))
    assert move.queue == "downloads.dead"
    assert move.headers[judge.ERROR] == "signal 11"
    assert move.headers[judge.STACK] == words.stack


HEADERS = st.dictionaries(
    st.sampled_from(["CC", "BCC", "x-death", "x-first-death-queue", "x-delivery-count", "mine"]),
    st.one_of(st.integers(), st.text(), st.lists(st.text())),
)


@given(HEADERS, st.sampled_from([FAILED, REJECTED, REQUEUED]), st.sampled_from(list(Origin)))
def test_a_copy_goes_nowhere_else_and_keeps_what_is_the_users(
    headers: dict[str, object], ending: Ending, origin: Origin
) -> None:
    delivered = Delivered(headers, "shop", "orders.new", False, origin, "alice")
    move = moved(conclude(spec_of(), delivered, ending))
    ours = {name for name in move.headers if name.startswith("sengu-")}
    assert move.headers.keys() - ours == headers.keys() & {"mine"}
    assert move.headers.get("mine") == headers.get("mine")
    assert move.headers.get(judge.CARBON_COPIES) == headers.get("CC")
    assert move.headers[judge.USER_ID] == "alice"


def test_where_it_was_published_is_known_after_any_number_of_copies() -> None:
    first = moved(conclude(spec_of(), Delivered({}, "shop", "orders.new", False), FAILED))
    second = Delivered(first.headers, "", "downloads", False)
    assert judge.original(second) == ("shop", "orders.new")
    again = moved(conclude(spec_of(), second, FAILED))
    assert judge.original(Delivered(again.headers, "", "", False)) == ("shop", "orders.new")


def test_reasons_of_before_are_gone_from_a_later_copy() -> None:
    first = moved(conclude(spec_of(), of_main(), Ending(Outcome.FAILED, "no", "Traceback")))
    second = moved(conclude(spec_of(), Delivered(first.headers, "", "", False), REQUEUED))
    assert {judge.ERROR, judge.STACK}.isdisjoint(second.headers)
    assert second.headers[judge.FAILURES] == 1


def test_long_errors_keep_their_begin_and_stacks_their_end() -> None:
    ending = Ending(Outcome.FAILED, "ValueError" + "x" * 5000, "y" * 50_000 + "raise ValueError")
    headers = moved(conclude(spec_of(), of_main(), ending)).headers
    assert headers[judge.ERROR].startswith("ValueError")
    assert headers[judge.STACK].endswith("raise ValueError")
    assert len(headers[judge.ERROR]) + len(headers[judge.STACK]) < 10_000


def test_errors_can_be_sent_whatever_is_in_them() -> None:
    ending = Ending(Outcome.FAILED, "no file \udce4\u20ac", "\ud800")
    headers = moved(conclude(spec_of(), of_main(), ending)).headers
    assert headers[judge.ERROR].encode().decode() == "no file \\udce4€"
    assert headers[judge.STACK].encode() == b"\\ud800"


@given(st.one_of(st.none(), st.integers(), st.text(), st.booleans(), st.binary()))
def test_headers_that_somebody_else_wrote_do_no_harm(value: object) -> None:
    headers = dict.fromkeys([judge.FAILURES, judge.SUSPECTED, judge.DELIVERY_COUNT], value)
    headers[judge.EXCHANGE] = value
    for origin in Origin:
        delivered = Delivered(headers, "", "downloads", False, origin)
        admit(spec_of(), delivered)
        assert moved(conclude(spec_of(), delivered, FAILED)).queue.startswith("downloads.")
