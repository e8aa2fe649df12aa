"""Queue consumers on RabbitMQ: what users import.

Names are imported when they are asked for, so that a program that only publishes loads no more.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sengu.consumers.api import Ack, Consumer, Reject, Requeue, consumer
    from sengu.consumers.content import UndecodableError
    from sengu.consumers.message import Message
    from sengu.consumers.publisher import Publisher
    from sengu.consumers.spec import Binding

_HOMES = {
    "Ack": "api",
    "Binding": "spec",
    "Consumer": "api",
    "Message": "message",
    "Publisher": "publisher",
    "Reject": "api",
    "Requeue": "api",
    "UndecodableError": "content",
    "consumer": "api",
}

__all__ = [
    "Ack",
    "Binding",
    "Consumer",
    "Message",
    "Publisher",
    "Reject",
    "Requeue",
    "UndecodableError",
    "consumer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sengu.consumers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sengu.consumers.{_HOMES[name]}"), name)
