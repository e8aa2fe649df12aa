"""What becomes of a message: whether it is run when it comes, and where it goes when it was.

Pure. A message goes on by a copy in another queue, which is confirmed before the message itself is
acknowledged: so it may be there twice when somebody is killed in between, and is never lost.

A message that kills its worker comes back from the broker, with all others that this worker had.
Which of them did it nobody knows. So one that has come back twice becomes a suspect, in a queue of
its own from which each process has one at a time: what comes back from there was what was running.
"""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple, assert_never

from sengu.consumers.model.spec import ConsumerSpec
from sengu.consumers.model.topology import dead_queue, retry_queue, suspects_queue

# Headers of ours. How often it has failed; how often it came back before it was a suspect.
FAILURES = "sengu-failures"
SUSPECTED = "sengu-suspected"
# Why it is where it is: an outcome, what the last error was, and its traceback.
REASON = "sengu-reason"
ERROR = "sengu-error"
STACK = "sengu-stack"
# When it came where it is (UNIX time). Set by who moves it.
MOVED_AT = "sengu-moved-at"
# What it was published with, which a copy has not.
EXCHANGE = "sengu-exchange"
ROUTING_KEY = "sengu-routing-key"
USER_ID = "sengu-user-id"
CARBON_COPIES = "sengu-cc"

DELIVERY_COUNT = "x-delivery-count"  # of quorum queues: how often it came back
# What a copy must not have: it would go elsewhere as well, or the broker would take it for a
# message that goes round in circles, and drop it (RabbitMQ, Dead Letter Exchanges, Routing).
_OF_THE_BROKER = {
    "CC",
    "BCC",
    DELIVERY_COUNT,
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
}
# A suspect has come back so often. Once is what a deploy or a broken connection does to anybody.
_RETURNS_OF_SUSPECT = 2
# Nor is a suspect dead that came back once: its worker may have been killed by somebody else.
_KILLS_OF_DEAD = 2

_LONGEST_ERROR = 1000
_LONGEST_STACK = 8000


class Origin(enum.Enum):
    """The queue that a delivery is from."""

    MAIN = enum.auto()
    SUSPECTS = enum.auto()


class Outcome(enum.StrEnum):
    """How a job ended; as `sengu-reason`, why a message was moved."""

    DONE = "done"
    REJECTED = "rejected"
    REQUEUED = "requeued"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    UNDECODABLE = "undecodable"
    KILLED = "killed its worker"
    SUSPECTED = "may have killed its worker"


class Delivered(NamedTuple):
    """What the broker says of a message; `headers` are its own."""

    headers: Mapping[str, Any]
    exchange: str
    routing_key: str
    redelivered: bool
    origin: Origin = Origin.MAIN
    user_id: str | None = None

    @property
    def failures(self) -> int:
        return _number(self.headers.get(FAILURES))

    @property
    def returns(self) -> int:
        """How often it came back to the queue that it is from, as far as that is known."""
        count = _number(self.headers.get(DELIVERY_COUNT))
        return count or int(self.redelivered)


class Ending(NamedTuple):
    """How a job ended, and what there is to say of that."""

    outcome: Outcome
    error: str = ""
    stack: str = ""


class Move(NamedTuple):
    """Publish a copy to `queue` with these headers, then acknowledge it."""

    queue: str
    headers: Mapping[str, Any]
    outcome: Outcome
    delay_seconds: float | None = None


DONE = Ending(Outcome.DONE)


def admit(
    spec: ConsumerSpec, delivered: Delivered, last_words: Ending | None = None
) -> Move | None:
    """Where it goes without being run; None when it is to be run.

    `last_words` are those of a worker that died with it, if they are known.
    """
    if not spec.ack_late:
        return None
    if delivered.origin is Origin.MAIN:
        threshold = _RETURNS_OF_SUSPECT if spec.type == "quorum" else 1
        if delivered.returns < threshold:
            return None
        headers = _headers(delivered, Ending(Outcome.SUSPECTED))
        headers[SUSPECTED] = delivered.returns
        return Move(suspects_queue(spec.queue), headers, Outcome.SUSPECTED)
    kills = delivered.returns
    if kills < _KILLS_OF_DEAD or _charges(delivered) <= spec.retrying.retries:
        return None
    error = f"{kills + _number(delivered.headers.get(SUSPECTED))} workers died with it"
    ending = last_words or Ending(Outcome.KILLED, error)
    headers = _headers(delivered, ending)
    headers[FAILURES] = _charges(delivered)
    return Move(dead_queue(spec.queue), headers, Outcome.KILLED)


def conclude(spec: ConsumerSpec, delivered: Delivered, ending: Ending) -> Move | None:
    """Where it goes after its job; None when it is done with."""
    if ending.outcome is Outcome.DONE:
        return None
    headers = _headers(delivered, ending)
    # What it has killed as a suspect counts; what died before may have died of another.
    is_suspect = delivered.origin is Origin.SUSPECTS
    charged = delivered.failures + (delivered.returns if is_suspect else 0)
    match ending.outcome:
        case Outcome.REQUEUED:
            if charged:
                headers[FAILURES] = charged
            return Move(spec.queue, headers, ending.outcome)
        case Outcome.FAILED | Outcome.TIMED_OUT:
            headers[FAILURES] = charged + 1
            if charged < spec.retrying.retries:
                delay = spec.retrying.delays[charged]
                return Move(retry_queue(spec.queue, delay), headers, ending.outcome, delay)
            return Move(dead_queue(spec.queue), headers, ending.outcome)
        case Outcome.REJECTED | Outcome.UNDECODABLE | Outcome.KILLED | Outcome.SUSPECTED:
            return Move(dead_queue(spec.queue), headers, ending.outcome)
        case _:
            assert_never(ending.outcome)


def original(delivered: Delivered) -> tuple[str, str]:
    """Exchange and routing key that it was published with."""
    headers = delivered.headers
    exchange, key = headers.get(EXCHANGE), headers.get(ROUTING_KEY)
    if isinstance(exchange, str) and isinstance(key, str):
        return exchange, key
    return delivered.exchange, delivered.routing_key


def _charges(delivered: Delivered) -> int:
    suspected = _number(delivered.headers.get(SUSPECTED))
    return delivered.failures + suspected + delivered.returns


def _headers(delivered: Delivered, ending: Ending) -> dict[str, Any]:
    """Those of a copy: nothing that would send it elsewhere."""
    headers = {
        name: value
        for name, value in delivered.headers.items()
        if name not in _OF_THE_BROKER and name != SUSPECTED
    }
    headers[EXCHANGE], headers[ROUTING_KEY] = original(delivered)
    headers[REASON] = ending.outcome.value
    # An error begins with what it is; a stack ends with where it is.
    texts = {ERROR: ending.error[:_LONGEST_ERROR], STACK: ending.stack[-_LONGEST_STACK:]}
    for name, text in texts.items():
        headers.pop(name, None)
        if text:  # which may have surrogates, as names of files do
            headers[name] = text.encode(errors="backslashreplace").decode()
    if "CC" in delivered.headers:
        headers[CARBON_COPIES] = delivered.headers["CC"]
    if delivered.user_id is not None:
        headers[USER_ID] = delivered.user_id
    return headers


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
