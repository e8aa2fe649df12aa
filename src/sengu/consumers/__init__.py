"""Queue consumers on RabbitMQ: what users import. `engine` runs them, in rooms of their own.

Names are imported when they are asked for, so that a program that only publishes loads no more.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sengu.consumers.library import check_library

if TYPE_CHECKING:
    from sengu.consumers.api import Ack, Consumer, Reject, Requeue, consumer
    from sengu.consumers.broker.confirmed import PublishError
    from sengu.consumers.broker.explain import BrokerError
    from sengu.consumers.content import UndecodableError
    from sengu.consumers.message import Message
    from sengu.consumers.model.spec import Binding
    from sengu.consumers.publisher import Publisher

_HOMES = {
    "Ack": "api",
    "Binding": "model.spec",
    "BrokerError": "broker.explain",
    "Consumer": "api",
    "Message": "message",
    "PublishError": "broker.confirmed",
    "Publisher": "publisher",
    "Reject": "api",
    "Requeue": "api",
    "UndecodableError": "content",
    "consumer": "api",
}
# Those that import what speaks AMQP.
_CONNECTING = {"broker.confirmed", "broker.explain", "publisher"}

__all__ = [
    "Ack",
    "Binding",
    "BrokerError",
    "Consumer",
    "Message",
    "PublishError",
    "Publisher",
    "Reject",
    "Requeue",
    "UndecodableError",
    "consumer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sengu.consumers' has no attribute {name!r}")
    if _HOMES[name] in _CONNECTING:
        check_library()
    return getattr(importlib.import_module(f"sengu.consumers.{_HOMES[name]}"), name)
