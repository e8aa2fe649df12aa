"""`python -m` of this with a COUNT publishes; what was published is done by `celery worker`.

As reliable as ours: acknowledged after the job, in a quorum queue.
"""

import os
import sys

from celery import Celery

from bench.programs.consuming.work import URL, work

_prefetch, _threads = int(os.environ["BENCH_PREFETCH"]), int(os.environ["BENCH_THREADS"])

app = Celery("jobs", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_pool_limit=1,
    task_acks_late=True,
    task_default_queue="jobs",
    task_default_queue_type="quorum",
    task_ignore_result=True,
    task_serializer="json",
    worker_prefetch_multiplier=_prefetch // _threads,
)


def _handle(data: dict[str, str]) -> None:
    work(data["url"])


handle = app.task(name="handle")(_handle)


if __name__ == "__main__":
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(int(sys.argv[1])):
            handle.apply_async(({"url": URL},), producer=producer)
