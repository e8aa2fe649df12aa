"""What users write: `@consumer` on a function, or a subclass of `Consumer`.

Imported by users' code through `sengu.consumers`; nothing here connects to anything.
"""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sengu.consumers.message import Message
from sengu.consumers.model.spec import (
    Binding,
    ConsumerSpec,
    Middleware,
    Retrying,
    check,
    retrying,
)
from sengu.errors import UsageError
from sengu.work.api import StopEvent

Handler = Callable[[Message], Any]
_H = TypeVar("_H", bound=Callable[[Message], Any])

# What a consumer has of the process that it is in.
SHARED = ("service", "generation", "slot", "config", "server", "log", "stopping")
# What a decorated function, or a class, has of ours.
_MARK = "__sengu_consumer__"


class Ack:
    """Returned by a handler: the message is done with. So is one whose handler returns None."""


class Reject:
    """Returned by a handler: the message is wrong. It goes to the dead-letter queue, untried."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason


class Requeue:
    """Returned by a handler: not now. The message goes to the end of its queue, at no charge."""


class Options(NamedTuple):
    """Those of `consumer`, which are also attributes of a subclass of `Consumer`.

    `bindings` are exchanges; `exchange` and what follows it are the first of them. `timeout` is in
    seconds; `backoff` says how `retry_delay` grows (constant, linear, exponential), or is all
    delays. With ack=False a message is acknowledged before its job, which is then never tried
    again, whatever `retries` is.
    """

    queue: str = ""
    exchange: str = ""
    exchange_type: str = "direct"
    exchange_durable: bool = True
    exchange_arguments: Mapping[str, Any] = {}
    routing_keys: str | Sequence[str] = ()
    bind_arguments: Mapping[str, Any] = {}
    bindings: Sequence[Binding] = ()
    durable: bool = True
    type: str = "quorum"
    arguments: Mapping[str, Any] = {}
    prefetch: int = 10
    threads: int = 1
    ack: bool = True
    timeout: float | None = None
    retries: int = 5
    backoff: str | Sequence[float] = "exponential"
    retry_delay: float = 10.0
    content_type: str | None = None
    middleware: Sequence[Middleware] = ()
    error_reporters: Sequence[Callable[..., Any]] = ()
    metrics: Sequence[Callable[..., Any]] = ()


class Consumer:
    """Subclass it, set `queue` and whatever else of `Options`, and write `handle`.

    One object for each process. `handle` is called by several threads if `threads` is above 1; as
    a coroutine function, by an event loop, for as many messages at a time as `prefetch`.

    The attributes are those of `sengu.Worker`: `config` is a new mapping when the configuration
    has changed, `stopping` is set when the process is to end.
    """

    service: str
    generation: int
    slot: int
    config: Mapping[str, Any]
    server: Any
    log: logging.Logger
    stopping: StopEvent

    def setup(self) -> Any:
        """In each process, before the first message."""

    def handle(self, message: Message) -> Any:
        """Do the job. What it raises is a failure, and the message is tried again later."""
        raise NotImplementedError(f"{type(self).__name__} has no handle(); write one")

    def teardown(self) -> Any:
        """In each process, after the last message."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = {name: getattr(cls, name) for name in Options._fields if hasattr(cls, name)}
        if given.get("queue"):
            if cls.handle is Consumer.handle:
                raise UsageError(f"consumer {cls.__name__} has no handle(self, message); write one")
            setattr(cls, _MARK, _spec(cls.__name__, Options(**given)))


class Found(NamedTuple):
    """A consumer of a module: what it is, and what makes the object that handles."""

    spec: ConsumerSpec
    make: Callable[[], Consumer]


def consumer(queue: str, **options: Any) -> Callable[[_H], _H]:
    """Let a function handle the messages of a queue; `options` are those of `Options`.

    The function stays as it is, and can be called by tests. Raises UsageError, TypeError.
    """
    if not isinstance(queue, str):
        raise TypeError("@consumer needs the name of a queue, as in @consumer('downloads')")
    unknown = options.keys() - set(Options._fields)
    if unknown:
        raise TypeError(
            f"@consumer has no option {', '.join(sorted(unknown))}; there are "
            f"{', '.join(Options._fields)}"
        )
    given = Options(queue, **options)

    def mark(handler: _H) -> _H:
        name = getattr(handler, "__name__", repr(handler))
        if isinstance(handler, type):
            raise TypeError(f"{name} is a class; derive it from Consumer, without @consumer")
        if found_in(handler) is not None:
            raise UsageError(f"{name} is a consumer already; one function consumes one queue")
        setattr(handler, _MARK, _spec(name, given))
        return handler

    return mark


def found_in(thing: object) -> Found | None:
    """What a name of a module is, if it is a consumer."""
    try:
        spec = getattr(thing, "__dict__", {}).get(_MARK)
    except Exception:  # a proxy of something that is not there, such as flask.request
        return None
    if not isinstance(spec, ConsumerSpec):
        return None
    if isinstance(thing, type):
        return Found(spec, thing)
    assert callable(thing)
    handler: Callable[[Message], Any] = thing
    return Found(spec, lambda: _Function(handler))


def is_coroutine(made: Consumer) -> bool:
    return inspect.iscoroutinefunction(made.handle)


class _Function(Consumer):
    """A function as a consumer."""

    def __init__(self, handler: Handler) -> None:
        self.handle = handler  # type: ignore[assignment, method-assign]


def _spec(name: str, given: Options) -> ConsumerSpec:
    """Raises UsageError."""
    keys = (given.routing_keys,) if isinstance(given.routing_keys, str) else given.routing_keys
    first = Binding(
        given.exchange,
        tuple(keys),
        given.exchange_type,
        given.exchange_durable,
        given.exchange_arguments,
        given.bind_arguments,
    )
    if not given.exchange and (keys or given.bind_arguments):
        raise UsageError(
            f"consumer {name}: routing_keys and bind_arguments are of an exchange; give exchange="
        )
    plan = retrying(given.retries, given.backoff, given.retry_delay)
    bindings = (*((first,) if given.exchange else ()), *given.bindings)
    return check(
        ConsumerSpec(
            name=name,
            queue=given.queue,
            bindings=bindings,
            durable=given.durable,
            type=given.type,
            arguments=given.arguments,
            prefetch=given.prefetch,
            threads=given.threads,
            ack_late=given.ack,
            timeout_seconds=given.timeout,
            retrying=plan if given.ack else Retrying(()),
            content_type=given.content_type,
            middleware=tuple(given.middleware),
            error_reporters=tuple(given.error_reporters),
            metrics=tuple(given.metrics),
        )
    )
