"""How many messages and consumers a queue has, as AMQP tells it.

RabbitMQ asks the leader of a quorum queue, and when that has not answered after 250 ms, says that
there are none (rabbit_quorum_queue, stat/1): so who is told so after such a time asks again.
Imported by the verbs that ask the broker.
"""

import msgspec
from pika.adapters.blocking_connection import BlockingChannel

from sengu.consumers.broker.explain import BrokerError
from sengu.posix import clock

_SUSPICIOUS_SECONDS = 0.2
_TRIES = 20


class Count(msgspec.Struct, frozen=True):
    """What AMQP tells of a queue."""

    ready: int
    consumers: int


def count_messages(channel: BlockingChannel, queue: str) -> Count:
    """Raises pika's errors, ChannelClosedByBroker with 404 if there is no such queue; BrokerError
    if its leader does not answer for some seconds. The channel's prefetch is set to none."""
    for _ in range(_TRIES):
        asked_at = clock.monotonic()
        method = channel.queue_declare(queue, passive=True).method
        answered_at = clock.monotonic()
        found = Count(method.message_count, method.consumer_count)
        if found.ready or found.consumers or answered_at - asked_at < _SUSPICIOUS_SECONDS:
            return found
        channel.basic_qos(prefetch_count=0)  # answered by the broker alone: so far away is it
        round_trip = clock.monotonic() - answered_at
        if answered_at - asked_at - round_trip < _SUSPICIOUS_SECONDS:
            return found
    raise BrokerError(
        f"nobody can say what queue {queue!r} has: its leader does not answer, or too slowly; see "
        f"rabbitmq-queues quorum_status {queue}"
    )
