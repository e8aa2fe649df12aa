"""Chaos on queue consumers, a short run; `make chaos-queues` makes long ones."""

import itertools

from tests.broker_nodes import Node
from tests.queue_chaos.driver import Outage, Plan
from tests.queue_chaos.plan import steps
from tests.queue_chaos.scenario import run

_SEED = 7


def test_after_kills_deploys_and_an_outage_of_the_broker_each_number_was_handled(
    own_broker: Node,
) -> None:
    lines: list[str] = []
    outcome = run(own_broker, Plan(_SEED, 3000, 3, (Outage.KILL,), lines.append))
    assert outcome.problems == [], outcome.summary


def test_the_same_seed_gives_the_same_steps() -> None:
    first, again, other = (
        list(itertools.islice(steps(seed, 3.0), 100)) for seed in (_SEED, _SEED, _SEED + 1)
    )
    assert first == again
    assert first != other
