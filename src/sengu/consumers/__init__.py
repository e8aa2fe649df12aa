"""Queue consumers on RabbitMQ: what users import.

Names are imported when they are asked for, so that a program that only publishes loads no more.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sengu.consumers.library import check_library

if TYPE_CHECKING:
    from sengu.consumers.api import Ack, Consumer, Reject, Requeue, consumer
    from sengu.consumers.confirmed import PublishError
    from sengu.consumers.content import UndecodableError
    from sengu.consumers.explain import BrokerError
    from sengu.consumers.message import Message
    from sengu.consumers.publisher import Publisher
    from sengu.consumers.spec import Binding

_HOMES = {
    "Ack": "api",
    "Binding": "spec",
    "BrokerError": "explain",
    "Consumer": "api",
    "Message": "message",
    "PublishError": "confirmed",
    "Publisher": "publisher",
    "Reject": "api",
    "Requeue": "api",
    "UndecodableError": "content",
    "consumer": "api",
}
# Those that import what speaks AMQP.
_CONNECTING = {"confirmed", "explain", "publisher"}

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
