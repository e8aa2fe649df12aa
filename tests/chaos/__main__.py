"""`python -m tests.chaos --seed N --kills N`: one run, on demand as long as one likes."""

import argparse
import random
import sys

from tests.chaos.scenario import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.kills} kills, {asked.workers} workers", flush=True)
    outcome = run(asked.seed, asked.kills, asked.workers, lambda text: print(text, flush=True))
    print(outcome.summary)
    if outcome.problems:
        again = f"--seed {asked.seed} --kills {asked.kills} --workers {asked.workers}"
        print(*outcome.problems, f"again: python -m tests.chaos {again}", sep="\n")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
