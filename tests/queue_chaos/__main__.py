"""`python -m tests.queue_chaos --seed N --messages N`: one run, as long as one likes."""

import argparse
import random
import sys

from tests import broker_nodes
from tests.queue_chaos.driver import Outage, Plan
from tests.queue_chaos.scenario import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.queue_chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    again = f"--seed {asked.seed} --messages {asked.messages} --workers {asked.workers}"
    print(again, flush=True)
    plan = Plan(
        asked.seed,
        asked.messages,
        asked.workers,
        (Outage.STOP, Outage.KILL),
        lambda text: print(text, flush=True),
    )
    with broker_nodes.node() as broker:
        outcome = run(broker, plan)
    print(outcome.summary)
    if outcome.problems:
        print(*outcome.problems, f"again: python -m tests.queue_chaos {again}", sep="\n")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
