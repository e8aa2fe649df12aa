"""What a process sends: declarations, and copies of messages, each confirmed by the broker.

A copy goes to a queue by its name. If that is not there (somebody has deleted it), it is declared
anew, and the copy sent again: the message that it is of is acknowledged only when the copy is safe.
Imported by `process`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import pika

from sengu.consumers.model.topology import Bind, Exchange, Queue, Topology
from sengu.posix.loop import Loop

_AGAIN_SECONDS = 1.0

Step = Callable[[Callable[..., None]], object]


class Needs(NamedTuple):
    """What is to be there, and whether it is declared or only looked for."""

    topologies: tuple[Topology, ...]
    declares: bool


class Copy(NamedTuple):
    """Something to publish; `then` is called when it is safe."""

    queue: str
    properties: Any
    body: bytes
    then: Callable[[], None]


class Owner(Protocol):
    """Whose outbox it is."""

    def opened(self) -> None:
        """All is declared."""

    def lost(self, outbox: "Outbox", error: BaseException) -> None:
        """The broker has closed its channel."""

    def refused(self, queue: str) -> None:
        """The broker does not take a copy to this queue. It is tried again until it does."""


class Outbox:
    """One channel of a connection, while that lasts."""

    def __init__(self, connection: Any, loop: Loop, needs: Needs, owner: Owner) -> None:
        self._loop = loop
        self._needs = needs
        self._owner = owner
        self._steps: Iterator[Step] = iter(())
        self._pending: dict[int, tuple[float, Copy]] = {}
        self._refusing: set[str] = set()
        self._unroutable: set[str] = set()
        self._failed: list[Copy] = []
        self._awaiting: list[Callable[[], None]] = []
        self._next_tag = 1
        self._is_open = self._is_stepping = False
        self._channel: Any = connection.channel(on_open_callback=self._begin)

    @property
    def is_empty(self) -> bool:
        return not self._pending and not self._failed

    def silent_since(self) -> float | None:
        """When the oldest copy was sent to which there is no answer."""
        return next((since for since, _ in self._pending.values()), None)

    def publish(self, copy: Copy) -> None:
        """Send it; `copy.then` is never called if the connection is lost before."""
        if not self._is_open:
            self._fail(copy)
            return
        self._pending[self._next_tag] = self._loop.now(), copy
        self._next_tag += 1
        self._channel.basic_publish("", copy.queue, copy.body, copy.properties, mandatory=True)

    def declare(self, then: Callable[[], None]) -> None:
        """All once more, as some was deleted."""
        self._awaiting.append(then)
        self._try_again()

    def _begin(self, channel: Any) -> None:
        channel.add_on_close_callback(lambda _channel, why: self._owner.lost(self, why))
        channel.add_on_return_callback(self._on_return)
        self._go(self._all_steps())

    def _all_steps(self) -> Iterator[Step]:
        yield from self._declarations()
        yield self._ask_for_confirms
        self._opened()

    def _declarations(self) -> Iterator[Step]:
        for one in self._needs.topologies:
            yield from declarations(self._channel, one, passive=not self._needs.declares)

    def _ask_for_confirms(self, done: Callable[..., None]) -> None:
        self._channel.confirm_delivery(self._on_confirm, callback=done)

    def _go(self, steps: Iterator[Step]) -> None:
        self._is_stepping = True
        self._steps = steps
        self._advance()

    def _advance(self, *_: object) -> None:
        if not self._channel.is_open:  # what is answered now was asked before the good-bye
            return
        step = next(self._steps, None)
        if step is not None:
            step(self._advance)
        else:
            self._is_stepping = False

    def _opened(self) -> None:
        self._is_open = True
        self._owner.opened()

    def _on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        """It comes before the confirm of what it is about."""
        self._unroutable.add(method.routing_key)

    def _on_confirm(self, frame: Any) -> None:
        confirm = frame.method
        first = next(iter(self._pending), 0) if confirm.multiple else confirm.delivery_tag
        for tag in range(first, confirm.delivery_tag + 1):
            _, copy = self._pending.pop(tag, (0.0, None))
            if copy is None:
                continue
            if isinstance(confirm, pika.spec.Basic.Nack) or copy.queue in self._unroutable:
                self._refuse(copy)
            else:
                self._refusing.discard(copy.queue)
                copy.then()

    def _refuse(self, copy: Copy) -> None:
        if copy.queue not in self._refusing:
            self._refusing.add(copy.queue)
            self._owner.refused(copy.queue)
        self._fail(copy)

    def _fail(self, copy: Copy) -> None:
        self._failed.append(copy)
        if len(self._failed) == 1:
            self._try_later()

    def _try_later(self) -> None:
        self._loop.call_at(self._loop.now() + _AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        if not self._channel.is_open:  # all that it has is over
            return
        if self._is_stepping:
            self._try_later()
        elif self._failed or self._awaiting:
            self._go(self._again())

    def _again(self) -> Iterator[Step]:
        yield from self._declarations()
        awaiting, self._awaiting = self._awaiting, []
        for then in awaiting:
            then()
        self._unroutable.clear()
        failed, self._failed = self._failed, []
        for copy in failed:
            self.publish(copy)


def declarations(channel: Any, topology: Topology, *, passive: bool = False) -> Iterator[Step]:
    """What to do one after the other; each gets what to call when it is done."""
    for exchange in topology.exchanges:
        yield _exchange(channel, exchange, passive)
    for queue in topology.queues:
        yield _queue(channel, queue, passive)
    if passive:
        return
    for bind in topology.binds:
        yield _bind(channel, bind)


def _exchange(channel: Any, one: Exchange, passive: bool) -> Step:
    return lambda done: channel.exchange_declare(
        one.name,
        one.type,
        passive=passive,
        durable=one.durable,
        arguments=dict(one.arguments),
        callback=done,
    )


def _queue(channel: Any, one: Queue, passive: bool) -> Step:
    return lambda done: channel.queue_declare(
        one.name,
        passive=passive,
        durable=one.durable,
        arguments=dict(one.arguments),
        callback=done,
    )


def _bind(channel: Any, one: Bind) -> Step:
    return lambda done: channel.queue_bind(
        one.queue, one.exchange, one.routing_key, arguments=dict(one.arguments), callback=done
    )
