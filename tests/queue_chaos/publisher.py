"""Publishes numbers, and tells of each batch that the broker has confirmed. A program of its own.

`python publisher.py QUEUE COUNT BATCH`, which finds the broker in SENGU_BROKER. It says
`FIRST END BEGAN ENDED` for each batch. Every fiftieth number fails once or twice at first.
"""

import sys
import time

from sengu.consumers import Publisher


def _body(number: int) -> str:
    failures = 0 if number % 50 else 1 + number // 50 % 2
    return f"{number} {failures}"


def main(queue: str, count: int, batch: int) -> None:
    with Publisher(timeout=60) as publisher:
        for first in range(0, count, batch):
            end = min(first + batch, count)
            began = time.monotonic()
            publisher.publish_all(queue, map(_body, range(first, end)))
            print(first, end, began, time.monotonic(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
