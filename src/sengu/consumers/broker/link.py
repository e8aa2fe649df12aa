"""The connection of a process to its broker, made again whenever it is lost.

Brokers are tried in turn. Each try that fails makes the pause before the next one longer, and no
two processes pause alike, so that a broker that comes back is not run over. Imported by `process`.
"""

import functools
import random
from collections.abc import Sequence
from typing import Any, Protocol

from sengu.consumers.broker.address import Address, BrokerError, explain, open_socket, parameters
from sengu.consumers.broker.connection import LoopConnection
from sengu.posix.loop import Loop

_CONNECT_SECONDS = _CLOSE_SECONDS = 5.0
_HANDSHAKE_SECONDS = 10.0  # as long as RabbitMQ waits for us (handshake_timeout)
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0


class Caller(Protocol):
    """Who needs the connection."""

    def up(self, connection: Any) -> None:
        """It is open."""

    def down(self, problem: BrokerError) -> None:
        """It is lost, or could not be made."""

    def blocked(self, reason: str) -> None:
        """The broker takes nothing for now; with "", it does again."""


class Link:
    """`start` makes the first connection; `close` ends the last."""

    def __init__(
        self,
        loop: Loop,
        addresses: Sequence[Address],
        heartbeat_seconds: float,
        name: str,
        caller: Caller,
    ) -> None:
        """`name` is what the broker shows the connection as."""
        self._loop = loop
        self._addresses = addresses
        self._heartbeat_seconds = heartbeat_seconds
        self._name = name
        self._caller = caller
        self._connection: LoopConnection | None = None
        self._tries = 0
        self._failed_in_row = 0
        self.is_closing = False

    @property
    def address(self) -> Address:
        """The one that is connected to, or was tried last."""
        return self._addresses[self._tries % len(self._addresses)]

    def start(self) -> None:
        """Try to connect now."""
        if self.is_closing or self._connection is not None:
            return
        try:
            opened = open_socket(self.address, _CONNECT_SECONDS)
        except BrokerError as problem:
            self._pause(problem)
            return
        given = self.address.heartbeat_seconds
        heartbeat = self._heartbeat_seconds if given is None else given
        settings = parameters(self.address, heartbeat_seconds=heartbeat, name=self._name)
        self._connection = LoopConnection(settings, self._loop, opened, self._open, self._end)
        self._connection.add_on_connection_blocked_callback(
            lambda _connection, frame: self._caller.blocked(str(frame.method.reason))
        )
        self._connection.add_on_connection_unblocked_callback(
            lambda _connection, _frame: self._caller.blocked("")
        )
        self._loop.call_at(
            self._loop.now() + _HANDSHAKE_SECONDS,
            functools.partial(self._give_up, self._connection),
        )

    def flush(self) -> None:
        if self._connection is not None:
            self._connection.flush()

    def drop(self, problem: BrokerError) -> None:
        """It is of no use as it is: make another."""
        if self._connection is not None:
            self._abandon()
            self._pause(problem)

    def close(self) -> None:
        """Say good-bye. `is_closed` when the broker has answered, or has had the time to."""
        self.is_closing = True
        if self._connection is None:
            return
        if not self._connection.is_open:
            self._abandon()
            return
        self._connection.close()
        self._connection.flush()
        self._loop.call_at(self._loop.now() + _CLOSE_SECONDS, self._abandon)

    @property
    def is_closed(self) -> bool:
        return self._connection is None

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _open(self, connection: Any) -> None:
        self._failed_in_row = 0
        self._caller.up(connection)

    def _give_up(self, connection: LoopConnection) -> None:
        """Whoever has accepted it may say nothing; pika leaves that to its own adapters."""
        if connection is self._connection and not connection.is_open and not self.is_closing:
            self.drop(explain(TimeoutError(), self.address))

    def _end(self, connection: Any, error: BaseException) -> None:
        if connection is self._connection:
            self._connection = None
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if self.is_closing:
            return
        self._pause(explain(error, self.address))

    def _pause(self, problem: BrokerError) -> None:
        self._tries += 1
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**self._failed_in_row)
        self._failed_in_row += 1
        self._loop.call_at(self._loop.now() + pause * random.uniform(0.5, 1.0), self.start)
        self._caller.down(problem)
