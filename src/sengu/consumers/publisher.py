"""What programs publish with: each message is confirmed by the broker before the call returns.

Runs in users' programs, in workers and in `sengu publish`; imported through `sengu.consumers`.

There is no thread beside the caller's, so nobody answers AMQP's heartbeats between two calls: they
are off, and the kernel's keep-alive finds out that a peer is gone (`broker.open_socket`). A
connection that broke meanwhile is found broken by the next call, which makes another.
"""

import os
import threading
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict, Unpack

import pika

from sengu.consumers.broker.address import parse_brokers, persist
from sengu.consumers.broker.confirmed import BrokenError, Link, Parcel, PublishError, Target
from sengu.consumers.content import encode
from sengu.errors import UsageError
from sengu.posix import clock

__all__ = ["PublishError", "PublishOptions", "Publisher"]

_HIGHEST_PRIORITY = 255


class PublishOptions(TypedDict, total=False):
    """What a message may have besides.

    exchange, routing_key: to an exchange; the key is the queue's name if none is given.
    persistent: False if it may be lost when the broker restarts. priority: 0 to 255.
    expiration: seconds after which nobody is to get it any more.
    """

    exchange: str
    routing_key: str | None
    headers: Mapping[str, Any] | None
    persistent: bool
    priority: int | None
    expiration: float | None


class Publisher:
    """A connection to the broker, made when the first message is published, and kept.

    `broker` is a URL, several, or None for SENGU_BROKER. For several threads, which take turns; a
    forked child makes a connection of its own. A call takes `timeout` seconds at most, in which it
    connects again if need be. What was published when the connection broke may be there twice, with
    the same message_id.
    """

    def __init__(self, broker: str | Sequence[str] | None = None, *, timeout: float = 30.0) -> None:
        """Does not connect yet. Raises UsageError for a URL that is none."""
        texts = (broker,) if isinstance(broker, str) else tuple(broker or ())
        self._addresses = parse_brokers(texts, os.environ)
        self._timeout_seconds = timeout
        self._lock = threading.Lock()
        self._link: Link | None = None
        _publishers.add(self)

    def publish(
        self,
        queue: str,
        data: Any,
        *,
        content_type: str | None = None,
        message_id: str | None = None,
        **options: Unpack[PublishOptions],
    ) -> str:
        """Publish `data` to a queue, and return the message_id once the broker has it.

        bytes are published as they are, str as text, anything else as JSON, or what `content_type`
        says. The message_id is a random one if none is given.

        Raises PublishError when no queue gets it or the broker refuses it, BrokerError when there
        is no broker, TypeError when `data` cannot be encoded.
        """
        message_id = message_id or _new_id()
        self._deliver((_parcel(queue, encode(data, content_type), message_id, options),))
        return message_id

    def publish_all(
        self,
        queue: str,
        bodies: Iterable[Any],
        *,
        content_type: str | None = None,
        **options: Unpack[PublishOptions],
    ) -> int:
        """Publish several at once, which is faster; returns how many once the broker has them all.

        As `publish`, each with a message_id of its own. When it raises, some of them may be there.
        """
        parcels = [
            _parcel(queue, encode(data, content_type), _new_id(), options) for data in bodies
        ]
        self._deliver(parcels)
        return len(parcels)

    def close(self) -> None:
        """Another call connects again."""
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Publisher({', '.join(map(str, self._addresses))})"

    def _forget(self) -> None:
        """In a forked child: the connection is the parent's, and so may be who has the lock."""
        self._lock = threading.Lock()
        if self._link is not None:
            self._link.leave_to_parent()
            self._link = None

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        until = clock.monotonic() + self._timeout_seconds
        with self._lock:
            while parcels:
                link = self._linked(until)
                try:
                    link.deliver(parcels, until)
                    return
                except BrokenError as broken:
                    self._drop()
                    if broken.error.is_final or clock.monotonic() >= until:
                        raise broken.error from broken
                    parcels = broken.unconfirmed
                except BaseException:  # whatever it is: answers to these are not for the next call
                    self._drop()
                    raise

    def _linked(self, until: float) -> "Link":
        """Raises BrokerError."""
        if self._link is not None and not self._link.is_alive():
            self._drop()
        if self._link is None:
            self._link = persist(self._addresses, until, Link)
        return self._link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abandon()
            self._link = None


_publishers: "weakref.WeakSet[Publisher]" = weakref.WeakSet()


def _forget_all() -> None:
    for publisher in tuple(_publishers):
        publisher._forget()


os.register_at_fork(after_in_child=_forget_all)


def _new_id() -> str:
    return uuid.uuid4().hex


def _parcel(
    queue: str, encoded: tuple[bytes, str], message_id: str, options: PublishOptions
) -> Parcel:
    """Raises TypeError, UsageError."""
    unknown = options.keys() - PublishOptions.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"publish() has no option {', '.join(sorted(unknown))}; there are content_type, "
            f"message_id, {', '.join(PublishOptions.__annotations__)}"
        )
    priority, expiration = options.get("priority"), options.get("expiration")
    if priority is not None and not 0 <= priority <= _HIGHEST_PRIORITY:
        raise UsageError(f"priority={priority} is not from 0 to {_HIGHEST_PRIORITY}")
    if expiration is not None and expiration < 0:
        raise UsageError(f"expiration={expiration:g} is below 0; give seconds")
    body, content_type = encoded
    key = options.get("routing_key")
    properties = pika.BasicProperties(
        content_type=content_type,
        headers=dict(options.get("headers") or {}),
        delivery_mode=2 if options.get("persistent", True) else 1,
        priority=priority,
        expiration=None if expiration is None else str(round(expiration * 1000)),
        message_id=message_id,
        timestamp=int(clock.wall()),
    )
    return Parcel(
        Target(options.get("exchange", ""), queue if key is None else key), properties, body
    )
