"""What a consumer can be, and the queues that it then has."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.consumers.model.spec import Binding, ConsumerSpec, Retrying, check, retrying
from sengu.consumers.model.topology import Bind, Exchange, topology
from sengu.errors import UsageError
from tests.unit.support_consumers import spec_of


@pytest.mark.parametrize(
    ("growth", "delays"),
    [
        ("constant", (10.0, 10.0, 10.0)),
        ("linear", (10.0, 20.0, 30.0)),
        ("exponential", (10.0, 20.0, 40.0)),
        ([1, 60], (1.0, 60.0, 60.0)),
        ([1.5, 2, 3, 4], (1.5, 2.0, 3.0)),
    ],
)
def test_delays_grow_as_told(growth: str | list[float], delays: tuple[float, ...]) -> None:
    assert retrying(3, growth) == Retrying(delays)
    assert retrying(0, growth).retries == 0


@given(
    st.integers(0, 3000),
    st.sampled_from(["constant", "linear", "exponential"]),
    st.floats(0.001, 86400 * 365),
)
def test_delays_never_shrink_and_all_can_be_waited_for(
    retries: int, growth: str, delay: float
) -> None:
    delays = retrying(retries, growth, delay).delays
    assert len(delays) == retries
    assert list(delays) == sorted(delays)
    assert all(1 <= seconds * 1000 <= 86400e3 * 365 for seconds in delays)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((3, "cubic"), "backoff='cubic' is none; give 'constant', 'linear', 'exponential', or"),
        ((-1, "linear"), "retries=-1 is below 0"),
        ((-1, [1.0]), "retries=-1 is below 0"),
        ((1, []), "backoff=[] has no delays"),
        ((1, [0.0]), "a delay of 0 s is not from 0.001 s to a year"),
        ((1, [float("nan")]), "a delay of nan s"),
        ((1, [5e7]), "a delay of 5e+07 s"),
        ((1, "constant", 5e7), "a delay of 5e+07 s"),
    ],
)
def test_delays_that_cannot_be_are_told_of(arguments: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        retrying(*arguments)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queue": ""}, "its queue has no name"),
        ({"queue": "é" * 101}, "is longer than 200 bytes"),
        ({"queue": "amq.mine"}, "names that begin with amq. are the broker's own"),
        ({"type": "stream"}, "type='stream' is none; give 'quorum' or 'classic'"),
        ({"durable": False}, "a quorum queue is durable; add type='classic'"),
        ({"arguments": {"x-queue-type": "classic"}}, "arguments has x-queue-type"),
        ({"bindings": (Binding(""),)}, "a binding has no exchange"),
        ({"prefetch": 0}, "prefetch=0 is not from 1 to 65535"),
        ({"threads": 0}, "threads=0 is below 1"),
        ({"threads": 11}, "threads=11 is above prefetch=10"),
        ({"timeout_seconds": 0.0}, "timeout=0 is not above 0"),
    ],
)
def test_a_consumer_that_cannot_be_is_told_of(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=f"^consumer handle: .*{re.escape(problem)}") as caught:
        check(ConsumerSpec(**{"name": "handle", "queue": "downloads"} | options))
    assert "\n" not in str(caught.value)


def test_each_delay_has_one_queue() -> None:
    plan = retrying(5, [1, 1.5, 60, 1, 1.0004])
    spec = ConsumerSpec(name="handle", queue="downloads", retrying=plan)
    waits = {
        queue.name: queue.arguments["x-message-ttl"]
        for queue in topology(spec).queues
        if ".retry." in queue.name
    }
    assert waits == {
        "downloads.retry.1s": 1000,
        "downloads.retry.1500ms": 1500,
        "downloads.retry.60s": 60_000,
    }


def test_a_queue_is_declared_after_those_it_sends_to() -> None:
    names = [queue.name for queue in topology(spec_of(1)).queues]
    assert names == ["downloads.dead", "downloads", "downloads.retry.10s", "downloads.suspects"]


def test_quorum_queues_lose_nothing_on_the_way_to_another() -> None:
    for queue in topology(spec_of(2)).queues:
        assert queue.durable
        assert queue.arguments["x-queue-type"] == "quorum"
        if queue.name != "downloads.dead":
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
            assert queue.arguments["x-overflow"] == "reject-publish"


def test_classic_queues_have_no_argument_that_they_do_not_know() -> None:
    *queues, suspects = topology(spec_of(2, type="classic", durable=False)).queues
    assert suspects.durable
    assert suspects.arguments["x-queue-type"] == "quorum"
    for queue in queues:
        assert not queue.durable
        assert {"x-dead-letter-strategy", "x-overflow"}.isdisjoint(queue.arguments)


def test_arguments_are_of_its_own_queue_only() -> None:
    spec = spec_of(1, arguments={"x-max-length": 5})
    has = {queue.name: "x-max-length" in queue.arguments for queue in topology(spec).queues}
    assert [name for name, found in has.items() if found] == ["downloads"]


def test_who_acknowledges_early_has_no_queues_for_later() -> None:
    names = [queue.name for queue in topology(spec_of(0, ack_late=False)).queues]
    assert names == ["downloads.dead", "downloads"]


def test_exchanges_are_made_and_bound_but_for_those_of_the_broker() -> None:
    made = topology(
        spec_of(
            bindings=(
                Binding("shop", ("new", "paid"), "topic"),
                Binding("amq.fanout"),
                Binding("by-header", type="headers", arguments={"x-match": "all", "kind": "a"}),
            )
        )
    )
    assert made.exchanges == (
        Exchange("shop", "topic", True, {}),
        Exchange("by-header", "headers", True, {}),
    )
    assert made.binds == (
        Bind("downloads", "shop", "new", {}),
        Bind("downloads", "shop", "paid", {}),
        Bind("downloads", "amq.fanout", "downloads", {}),
        Bind("downloads", "by-header", "downloads", {"x-match": "all", "kind": "a"}),
    )
