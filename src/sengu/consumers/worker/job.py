"""A job: one message in the hands of a handler. Run by `runners`."""

import functools
import inspect
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from sengu.consumers.api import Ack, Reject, Requeue
from sengu.consumers.content import UndecodableError
from sengu.consumers.message import Message
from sengu.consumers.model.judge import DONE, Delivered, Ending, Outcome
from sengu.consumers.model.spec import ConsumerSpec
from sengu.posix import clock

_log = logging.getLogger("sengu.consumers")


class Report(NamedTuple):
    """What `metrics` are called with: a job that has ended. `outcome` is one of `Outcome`."""

    consumer: str
    queue: str
    outcome: str
    seconds: float
    attempt: int


class Job:
    """One message and what is to be done with it. `settle` is called in the connection's thread,
    once, with how it ended.
    """

    __slots__ = (
        "delivered",
        "handle",
        "has_ended",
        "is_over",
        "message",
        "settle",
        "spec",
        "started_at",
        "thread_id",
    )

    def __init__(
        self,
        spec: ConsumerSpec,
        handle: Callable[[Message], Any],
        message: Message,
        delivered: Delivered,
        settle: Callable[["Job", Ending], None],
    ) -> None:
        self.spec = spec
        self.handle = handle
        self.message = message
        self.delivered = delivered
        self.settle = settle
        self.started_at = 0.0
        self.thread_id = 0
        self.has_ended = False
        # Nobody waits for how it ends any more: its time is up, or its connection is gone.
        self.is_over = False

    def run(self) -> Ending:
        """In a thread."""
        try:
            _check(self)
            return _ending_of(self.handle(self.message))
        except BaseException as error:  # whatever the user's code raises
            return self._failed(error)

    async def run_async(self) -> Ending:
        """In an event loop."""
        try:
            _check(self)
            result = self.handle(self.message)
            return _ending_of(await result if inspect.isawaitable(result) else result)
        except BaseException as error:  # whatever the user's code raises
            return self._failed(error)

    def report(self, ending: Ending) -> None:
        """Tell `metrics`. In whatever thread; what they raise is logged."""
        if not self.spec.metrics:
            return
        seconds = clock.monotonic() - self.started_at
        report = Report(
            self.spec.name, self.spec.queue, ending.outcome.value, seconds, self.message.attempt
        )
        for tell in self.spec.metrics:
            try:
                tell(report)
            except BaseException:  # the user's; nor is SystemExit to end our thread
                _log.exception("metrics %r failed", tell)

    def _failed(self, error: BaseException) -> Ending:
        if isinstance(error, UndecodableError):
            ending = Ending(Outcome.UNDECODABLE, str(error))
        else:
            text = traceback.format_exception_only(error)[-1].strip()
            ending = Ending(Outcome.FAILED, text, "".join(traceback.format_exception(error)))
        self._report_error(error)
        return ending

    def report_stuck(self, ending: Ending) -> None:
        """Its thread does not come back, so another tells `metrics` and error reporters."""

        def tell() -> None:
            self.report(ending)
            self._report_error(TimeoutError(ending.error))

        threading.Thread(target=tell, name="reports", daemon=True).start()

    def _report_error(self, error: BaseException) -> None:
        for tell in self.spec.error_reporters:
            try:
                tell(error, self.message, self.spec.name)
            except BaseException:  # the user's
                _log.exception("error reporter %r failed", tell)


def chain(spec: ConsumerSpec, handle: Callable[[Message], Any]) -> Callable[[Message], Any]:
    """The handler within the middleware, the first of which is the outermost."""
    for middleware in reversed(spec.middleware):
        handle = functools.partial(_call_within, middleware, handle)
    return handle


def _call_within(middleware: Any, following: Callable[[Message], Any], message: Message) -> Any:
    return middleware(message, following)


def _check(job: Job) -> None:
    """A consumer that names a content type gets no message whose body is not what it says it is.

    Raises UndecodableError.
    """
    if job.spec.content_type is not None:
        _ = job.message.data


def _ending_of(result: object) -> Ending:
    if result is None or result is Ack or isinstance(result, Ack):
        return DONE
    if result is Reject:
        return Ending(Outcome.REJECTED)
    if isinstance(result, Reject):
        return Ending(Outcome.REJECTED, result.reason)
    if result is Requeue or isinstance(result, Requeue):
        return Ending(Outcome.REQUEUED)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("the handler returned a coroutine; declare it with async def")
    return DONE
