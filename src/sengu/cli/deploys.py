"""A deploy as its requester sees it: ask, follow the events, come back with the outcome.

Imported by `cli.reload` and `cli.pidfile`.
"""

from contextlib import ExitStack

import click
import msgspec

from sengu.cli.exits import Exit
from sengu.cli.progress import Progress, open_progress
from sengu.cli.text import duration, plural, printable, quote_last_words
from sengu.cli.waiting import SupersededError, waiting_for
from sengu.control.api import Record, Status
from sengu.control.client import ControlClient, EventStream
from sengu.control.deadline import Deadline
from sengu.errors import SenguError
from sengu.model.observed import Outcome
from sengu.posix import clock

# What old workers do last; after each of these fewer of them may be left.
_DEPARTURES = ("worker_exited", "generation_retired")


class Order(msgspec.Struct, frozen=True):
    """`drained`: come back only when the old generations are gone too. `immediate`: their workers
    are not to finish.
    """

    drained: bool = False
    immediate: bool = False


class Conclusion(msgspec.Struct, frozen=True):
    """How a deploy ended; the fields of a `deploy_concluded` event."""

    generation: int
    outcome: Outcome
    reason: str
    last_words: str = ""


class Tally:
    """Counts a generation's ready workers from the events about them."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._started: set[int] = set()
        self._ready: set[int] = set()

    @property
    def ready(self) -> int:
        return len(self._ready)

    def add(self, record: Record) -> None:
        worker = record.fields.get("worker")
        if not isinstance(worker, int):
            return
        if record.type == "worker_started" and record.fields.get("generation") == self._generation:
            self._started.add(worker)
        elif record.type == "worker_ready" and worker in self._started:
            self._ready.add(worker)
        elif record.type in ("worker_exited", "worker_killed", "worker_stopping"):
            self._ready.discard(worker)


def deploy(client: ControlClient, order: Order, deadline: Deadline) -> int:
    """Ask for a deploy and wait for it. Raises SenguError with the reason when it fails."""
    before = client.status()
    began = clock.monotonic()
    accepted = client.reload(order.immediate)
    number = accepted.generation
    goes_on = f"the deploy of generation {number} goes on; sengu status {before.name} shows it"
    with waiting_for(goes_on, deadline), ExitStack() as stack:
        progress = stack.enter_context(open_progress())
        stream = stack.enter_context(client.events(accepted.last_event, follow=True))
        watch = _Watch(client, stream, progress, deadline)
        conclusion = watch.await_conclusion(number, before.workers_wanted)
        _raise_unless_succeeded(conclusion, before)
        if order.drained:
            watch.await_departures(number)
    took = duration(clock.monotonic() - began)
    click.echo(f"generation {number} serves, after {took}: {printable(conclusion.reason)}")
    return Exit.OK


class _Watch:
    """Reads the events until what we wait for has happened, and shows them."""

    def __init__(
        self, client: ControlClient, stream: EventStream, progress: Progress, deadline: Deadline
    ) -> None:
        self._client = client
        self._stream = stream
        self._progress = progress
        self._deadline = deadline

    def await_conclusion(self, generation: int, wanted: int) -> Conclusion:
        """The outcome of that generation's deploy."""
        tally = Tally(generation)
        self._progress.show(f"generation {generation} is being deployed")
        while (record := self._next()) is not None:
            if record.type == "deploy_concluded" and record.fields.get("generation") == generation:
                return msgspec.convert(record.fields, type=Conclusion)
            tally.add(record)
            self._progress.show(
                f"generation {generation}: {tally.ready} of {plural(wanted, 'worker')} ready"
            )
        raise SenguError(
            f"the instance went away before generation {generation} was deployed; see its log"
        )

    def await_departures(self, generation: int) -> None:
        """Wait until no worker of a generation before that one is left."""
        while left := _older_workers(self._client.status(), generation):
            self._progress.show(f"{plural(left, 'old worker')} to go")
            while (record := self._next()) is not None and record.type not in _DEPARTURES:
                pass
            if record is None:
                raise SenguError(
                    f"generation {generation} serves, but its instance went away while "
                    f"{plural(left, 'old worker')} had still to finish; see its log"
                )

    def _next(self) -> Record | None:
        record = self._stream.read(self._deadline.left())
        if record is not None:
            self._progress.tell(printable(record.text))
        return record


def _older_workers(status: Status, generation: int) -> int:
    # Also those that are ordered and not born: they are asked to stop when they are.
    return sum(worker.generation < generation for worker in status.workers)


def _raise_unless_succeeded(conclusion: Conclusion, before: Status) -> None:
    if conclusion.outcome is Outcome.SUCCEEDED:
        return
    number, reason = conclusion.generation, printable(conclusion.reason)
    if conclusion.outcome is Outcome.SUPERSEDED:
        raise SupersededError(
            f"the deploy of generation {number} was superseded: {reason}; "
            f"sengu status {before.name} shows the one that counts"
        )
    serves = f"; generation {before.generation} keeps serving" if before.generation else ""
    raise SenguError(
        f"the deploy of generation {number} was {conclusion.outcome}: {reason}{serves}"
        + quote_last_words(conclusion.last_words)
    )
