"""A connection that publishes, and knows what the broker has confirmed. One thread at a time.

Imported by `publisher`.
"""

import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pika
from pika import exceptions as ex
from pika import spec
from pika.channel import Channel
from pika.connection import Connection

from sengu.consumers.broker.address import Address, BrokerError, explain, open_socket, parameters
from sengu.consumers.broker.connection import LoopConnection
from sengu.errors import SenguError
from sengu.posix import clock
from sengu.posix.loop import Loop

_CLOSE_SECONDS = 2.0
_SILENT_SECONDS = 10.0


class PublishError(SenguError):
    """The broker did not take a message, or none of the queues there are is to get it."""


class Target(NamedTuple):
    """Where a message is published to."""

    exchange: str
    routing_key: str

    def __str__(self) -> str:
        if not self.exchange:
            return f"queue {self.routing_key!r}"
        return f"exchange {self.exchange!r} with routing key {self.routing_key!r}"


class Parcel(NamedTuple):
    """A message as it goes out; the same again if the connection breaks before it is confirmed."""

    target: Target
    properties: pika.BasicProperties
    body: bytes


class BrokenError(Exception):
    """The connection, or its channel, has ended before these were confirmed."""

    def __init__(self, error: BrokerError, unconfirmed: Sequence[Parcel]) -> None:
        super().__init__(str(error))
        self.error = error
        self.unconfirmed = unconfirmed


class Link:
    """One connection with a channel that confirms."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        """Raises BrokerError."""
        until = clock.monotonic() + timeout_seconds
        self._address = address
        self._end: BaseException | None = None
        self._is_ready = False
        self._last_tag = 0
        self._pending: dict[int, Parcel] = {}
        self._refused: list[Parcel] = []
        self._returned: list[tuple[str, Target]] = []
        self._blocked_by: str | None = None
        self._channel: Channel | None = None
        self._socket = open_socket(address, timeout_seconds)
        self._loop = Loop()
        self._connection = LoopConnection(
            parameters(address, heartbeat_seconds=0, name=f"sengu publisher {os.getpid()}"),
            self._loop,
            self._socket,
            self._on_open,
            self._on_end,
        )
        try:
            self._run(lambda: self._is_ready, until)
            if self._end is not None:
                raise explain(self._end, address)
            if not self._is_ready:
                raise explain(TimeoutError(), address)
        except BaseException:  # whatever it is, nobody will use it
            self.abandon()
            raise

    def is_alive(self) -> bool:
        """Look whether the broker has gone since the last call."""
        self._run(lambda: False, clock.monotonic())
        return self._end is None

    def deliver(self, parcels: Sequence[Parcel], until: float) -> None:
        """Raises BrokenError, PublishError."""
        assert self._channel is not None
        self._pending.clear()
        self._refused.clear()
        self._returned.clear()
        left = iter(parcels)
        for parcel in left:
            if self._end is not None:
                raise self._broken([*self._pending.values(), parcel, *left], len(parcels))
            self._last_tag += 1
            self._pending[self._last_tag] = parcel
            target, properties, body = parcel
            try:
                self._channel.basic_publish(*target, body, properties, mandatory=True)
            except (ex.ShortStringTooLong, ex.UnsupportedAMQPFieldException, struct.error) as error:
                raise PublishError(f"AMQP has no such message to {target}: {error!r}") from error
        self._await_confirms(until)
        if self._end is not None and self._pending:
            raise self._broken(list(self._pending.values()), len(parcels))
        self._complain(len(parcels))

    def close(self) -> None:
        if self._end is None:
            self._connection.close()
            self._run(lambda: False, clock.monotonic() + _CLOSE_SECONDS)
        self.abandon()

    def abandon(self) -> None:
        self._connection.abandon()
        self._loop.close()

    def leave_to_parent(self) -> None:
        """Close what a fork has copied, without a word to the broker or to the parent's epoll."""
        self._socket.close()
        self._loop.close()

    def _await_confirms(self, until: float) -> None:
        """A broker that loses another node may forget what it was to confirm: another connection
        gets it to do so.
        """
        while self._pending and self._end is None and clock.monotonic() < until:
            waiting = len(self._pending)
            silent_at = clock.monotonic() + _SILENT_SECONDS
            self._run(lambda: not self._pending, min(until, silent_at))
            is_silent = len(self._pending) == waiting and clock.monotonic() >= silent_at
            if is_silent and self._blocked_by is None and self._end is None:
                text = f"broker {self._address} confirms nothing for {_SILENT_SECONDS:.0f} s"
                self._end = BrokerError(text)

    def _broken(self, unconfirmed: Sequence[Parcel], count: int) -> Exception:
        """Raises PublishError, for others of them that are not to be published again."""
        assert self._end is not None
        if self._returned or self._refused:
            self._complain(count)
        error = explain(self._end, self._address)
        if isinstance(self._end, ex.ChannelClosedByBroker):  # it is a message that is wrong
            return PublishError(str(error))
        return BrokenError(error, unconfirmed)

    def _complain(self, count: int) -> None:
        """Raises PublishError."""
        of = f"{{}} of {count} messages: " if count > 1 else ""
        if self._returned:
            text, target = self._returned[0]
            raise PublishError(of.format(len(self._returned)) + _explain_return(text, target))
        if self._refused:
            target = self._refused[0].target
            raise PublishError(
                f"{of.format(len(self._refused))}the broker has refused what was published to "
                f"{target}: a queue is full or down; publish it again later, see sengu queues"
            )
        if self._pending:
            raise PublishError(of.format(len(self._pending)) + self._explain_waiting())

    def _explain_waiting(self) -> str:
        target = next(iter(self._pending.values())).target
        if self._blocked_by is not None:
            return (
                f"broker {self._address} takes no messages now ({self._blocked_by}), and may take "
                f"what was published to {target} later; give it memory or disk, see "
                "rabbitmq-diagnostics alarms"
            )
        return (
            f"broker {self._address} has not confirmed what was published to {target}, which may "
            "be there or not; see whether most of its nodes run, and publish it again"
        )

    def _run(self, is_done: Callable[[], bool], until: float) -> None:
        """Until it is done, the connection has ended, or it is time."""
        while True:
            if not self._has_ended():
                self._connection.flush()
            if self._has_ended():  # maybe found out just now
                return
            self._loop.run_once(until)
            if is_done() or self._has_ended() or clock.monotonic() >= until:
                return

    def _has_ended(self) -> bool:
        return self._end is not None

    # What the broker says

    def _on_open(self, connection: Connection) -> None:
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._channel = connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_end)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, self._on_ready)

    def _on_ready(self, _frame: Any) -> None:
        self._is_ready = True

    def _on_end(self, _who: Any, error: BaseException) -> None:
        self._end = self._end or error  # that of the channel comes first, and says more

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self._blocked_by = frame.method.reason

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self._blocked_by = None

    def _on_return(self, _channel: Any, method: spec.Basic.Return, *_rest: Any) -> None:
        target = Target(str(method.exchange), str(method.routing_key))
        self._returned.append((str(method.reply_text), target))

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._pending if tag <= method.delivery_tag]
        for tag in tags:
            parcel = self._pending.pop(tag, None)
            if parcel is not None and isinstance(method, spec.Basic.Nack):
                self._refused.append(parcel)


def _explain_return(text: str, target: Target) -> str:
    if target.exchange:
        return (
            f"no queue gets what is published to {target}: bind one, or start the consumer that "
            "does"
        )
    if text == "NO_ROUTE":
        return f"there is no {target}; start its consumer, which makes it, or correct the name"
    return f"the broker has returned what was published to {target}: {text}"
