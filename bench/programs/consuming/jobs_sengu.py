"""`python -m` of this with a COUNT publishes; what was published is done by `sengu consume`."""

import os
import sys

from bench.programs.consuming.work import URL, work
from sengu.consumers import Message, Publisher, consumer

_BROKER = os.environ["BENCH_BROKER"]
_QUEUE = "jobs"


@consumer(
    _QUEUE,
    prefetch=int(os.environ["BENCH_PREFETCH"]),
    threads=int(os.environ["BENCH_THREADS"]),
)
def handle(message: Message) -> None:
    work(message.json()["url"])


def declare() -> None:
    """What `sengu consume` would, if it ran before there is something to do."""
    import pika

    from sengu.consumers.api import found_in
    from sengu.consumers.model.topology import topology

    found = found_in(handle)
    assert found is not None
    with pika.BlockingConnection(pika.URLParameters(_BROKER)) as connection:
        channel = connection.channel()
        for queue in topology(found.spec).queues:
            channel.queue_declare(queue.name, durable=queue.durable, arguments=queue.arguments)


if __name__ == "__main__":
    declare()
    with Publisher(_BROKER) as publisher:
        publisher.publish_all(_QUEUE, [{"url": URL}] * int(sys.argv[1]))
