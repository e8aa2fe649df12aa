"""What a consumer is, as data: its queue, how jobs run, and what becomes of those that fail.

Pure. Made by `api` from what a user writes; read by `topology`, `judge` and all that runs jobs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sengu.errors import UsageError

Middleware = Callable[[Any, Callable[[Any], Any]], Any]

_DEFAULT_DELAY_SECONDS = 10.0
_GROWTHS = ("constant", "linear", "exponential")
_LONGEST_NAME_BYTES = 200  # AMQP's limit of 255, less what we append to it
_ENOUGH_DOUBLINGS = 64  # of a millisecond, for more than the longest delay
_LONGEST_DELAY_SECONDS = 86400.0 * 365  # RabbitMQ takes ten


class Binding(msgspec.Struct, frozen=True):
    """An exchange that the queue gets messages from, those with one of the routing keys.

    `arguments` are those of the binding, which an exchange of type `headers` compares.
    """

    exchange: str
    routing_keys: tuple[str, ...] = ()
    type: str = "direct"
    durable: bool = True
    exchange_arguments: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}


class Retrying(msgspec.Struct, frozen=True):
    """How often a failed job is tried again, and how many seconds later each time.

    A delay is of whole milliseconds.
    """

    delays: tuple[float, ...]

    @property
    def retries(self) -> int:
        return len(self.delays)


class ConsumerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is that of the function or class. `type` is the queue's: quorum or classic.

    Of `prefetch` messages that a process holds, `threads` are being handled at a time; a coroutine
    handles all of them. Without `ack_late` a message is acknowledged before its job begins: it is
    handled once at most, and never again when it fails.
    """

    name: str
    queue: str
    bindings: tuple[Binding, ...] = ()
    durable: bool = True
    type: str = "quorum"
    arguments: Mapping[str, Any] = {}
    prefetch: int = 10
    threads: int = 1
    ack_late: bool = True
    timeout_seconds: float | None = None
    retrying: Retrying = Retrying(())
    content_type: str | None = None
    middleware: tuple[Middleware, ...] = ()
    error_reporters: tuple[Callable[..., Any], ...] = ()
    metrics: tuple[Callable[..., Any], ...] = ()


def retrying(
    retries: int, backoff: str | Sequence[float], delay: float = _DEFAULT_DELAY_SECONDS
) -> Retrying:
    """`backoff` is how the delay grows, or all delays. Raises UsageError."""
    if retries < 0:
        raise UsageError(f"retries={retries!r} is below 0; give 0 for none")
    if isinstance(backoff, str):
        if backoff not in _GROWTHS:
            raise UsageError(
                f"backoff={backoff!r} is none; give {', '.join(map(repr, _GROWTHS))}, or the "
                "delays in seconds, as in backoff=[1, 10, 60]"
            )
        delays = tuple(_delay(backoff, delay, number) for number in range(retries))
    else:
        given = tuple(float(seconds) for seconds in backoff)
        if not given and retries:
            raise UsageError("backoff=[] has no delays; give at least one, or retries=0")
        delays = tuple(given[min(number, len(given) - 1)] for number in range(retries))
    for seconds in delays:
        if not 0.001 <= seconds <= _LONGEST_DELAY_SECONDS:
            raise UsageError(f"a delay of {seconds:g} s is not from 0.001 s to a year")
    return Retrying(tuple(round(seconds, 3) for seconds in delays))


def _delay(growth: str, first: float, number: int) -> float:
    match growth:
        case "constant":
            return first
        case "linear":
            grown = first * (number + 1)
        case _:
            grown = first * 2.0 ** min(number, _ENOUGH_DOUBLINGS)
    return max(first, min(grown, _LONGEST_DELAY_SECONDS))


def check(spec: ConsumerSpec) -> ConsumerSpec:
    """The spec, if it can be. Raises UsageError."""
    problem = _problem(spec)
    if problem:
        raise UsageError(f"consumer {spec.name}: {problem}")
    return spec


def _problem(spec: ConsumerSpec) -> str:
    if not spec.queue:
        return "its queue has no name; give one, as in @consumer('downloads')"
    if len(spec.queue.encode()) > _LONGEST_NAME_BYTES:
        return f"the name of its queue is longer than {_LONGEST_NAME_BYTES} bytes"
    if spec.queue.startswith("amq."):
        return f"queue {spec.queue!r}: names that begin with amq. are the broker's own"
    if spec.type not in {"quorum", "classic"}:
        return f"type={spec.type!r} is none; give 'quorum' or 'classic'"
    if spec.type == "quorum" and not spec.durable:
        return "a quorum queue is durable; add type='classic', or leave out durable=False"
    if "x-queue-type" in spec.arguments:
        return "arguments has x-queue-type; give type='quorum' or type='classic' instead"
    if not all(one.exchange for one in spec.bindings):
        return "a binding has no exchange; the default one needs none, its key is the queue's name"
    if not 1 <= spec.prefetch <= 65535:
        return f"prefetch={spec.prefetch} is not from 1 to 65535"
    if spec.threads < 1:
        return f"threads={spec.threads} is below 1"
    if spec.threads > spec.prefetch:
        return (
            f"threads={spec.threads} is above prefetch={spec.prefetch}, so that some would never "
            f"have a message; give a prefetch of {spec.threads} at least"
        )
    if spec.timeout_seconds is not None and spec.timeout_seconds <= 0:
        return f"timeout={spec.timeout_seconds:g} is not above 0; leave it out for none"
    return ""
