"""`python -m` of this with a COUNT publishes; what was published is done by `dramatiq`.

As reliable as ours: in a quorum queue, which dramatiq has no option for.
"""

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.programs.consuming.work import URL, work


class QuorumBroker(RabbitmqBroker):  # type: ignore[misc]
    """Its queues are quorum queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


dramatiq.set_broker(QuorumBroker(url=os.environ["BENCH_BROKER"]))


def _handle(data: dict[str, str]) -> None:
    work(data["url"])


handle = dramatiq.actor(_handle, queue_name="jobs")


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        handle.send({"url": URL})
