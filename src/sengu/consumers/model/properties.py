"""What AMQP says of a message, as a mapping and as a `Message`. Imported by `subscription`."""

from collections.abc import Iterator, Mapping
from typing import Any

from sengu.consumers.message import Message
from sengu.consumers.model.judge import Delivered, original
from sengu.consumers.model.spec import ConsumerSpec

# What a copy must not have: it would expire before its time, or be refused (RabbitMQ, Validated
# User-ID).
_LEFT_OUT = {"expiration": None, "user_id": None}


class Properties(Mapping[str, Any]):
    """AMQP's properties of a message, those that are set, by name."""

    __slots__ = ("_properties",)

    def __init__(self, properties: Any) -> None:
        self._properties = properties

    def __getitem__(self, name: str) -> Any:
        value = self._properties.__dict__.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._properties.__dict__.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self, headers: Mapping[str, Any]) -> Any:
        """pika's own, for a copy of the message that outlives a restart of the broker."""
        left = {name: value for name, value in self.items() if name not in _LEFT_OUT}
        return type(self._properties)(**{**left, "headers": dict(headers), "delivery_mode": 2})


def message_of(spec: ConsumerSpec, delivered: Delivered, properties: Any, body: bytes) -> Message:
    exchange, routing_key = original(delivered)
    return Message(
        body=body,
        queue=spec.queue,
        headers=delivered.headers,
        content_type=properties.content_type or spec.content_type,
        exchange=exchange,
        routing_key=routing_key,
        redelivered=delivered.redelivered,
        attempt=delivered.failures + 1,
        properties=Properties(properties),
    )
