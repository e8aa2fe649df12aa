"""Acknowledgements: each settled message is acknowledged once, and no other."""

import random

from hypothesis import given
from hypothesis import strategies as st

from sengu.consumers.model.tags import Acknowledgement, Tags


def acknowledged(sent: list[Acknowledgement], unacknowledged: set[int]) -> set[int]:
    """What a broker takes for done, of what it has not heard of."""
    found: set[int] = set()
    for tag, multiple in sent:
        reached = {one for one in unacknowledged - found if one <= tag} if multiple else {tag}
        assert tag in unacknowledged - found, "a tag that is not known closes the channel"
        found |= reached
    return found


def of(count: int) -> Tags:
    tags = Tags()
    for tag in range(1, count + 1):
        tags.add(tag)
    return tags


@given(st.integers(1, 40), st.randoms(use_true_random=False), st.floats(0, 1))
def test_whatever_the_order_what_is_settled_is_acknowledged_once_and_nothing_else(
    count: int, chance: random.Random, given_back: float
) -> None:
    tags, open_at_broker = of(count), set(range(1, count + 1))
    order = sorted(open_at_broker, key=lambda _: chance.random())
    settled: set[int] = set()
    for tag in order:
        if chance.random() < given_back / 2:
            tags.give_back(tag)
            open_at_broker.discard(tag)
            continue
        tags.settle(tag)
        settled.add(tag)
        if chance.random() < 0.4:
            done = acknowledged(tags.take(), open_at_broker)
            assert done == settled
            open_at_broker -= done
            settled.clear()
    assert acknowledged(tags.take(), open_at_broker) == settled
    assert not len(tags)
    assert tags.take() == []


def test_those_in_a_row_are_one_acknowledgement() -> None:
    tags = of(5)
    for tag in (1, 2, 3, 5):
        tags.settle(tag)
    assert tags.take() == [(3, True), (5, False)]
    tags.settle(4)
    assert tags.take() == [(4, False)]
