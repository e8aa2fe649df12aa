"""Orders to an instance whose server may be killed at any moment: asked until somebody answers."""

import http.client
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from tests.support import Event, Instance, Reply

_PATIENCE_SECONDS = 30.0
_RETRY_SECONDS = 0.02
_ACCEPTED = 202
_REFUSED = 409


def ask(instance: Instance, method: str, path: str, body: object = None) -> Reply:
    """Ask until there is an answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return instance.control(method, path, body)
        except (OSError, http.client.HTTPException, ValueError) as problem:  # cut off, or cut short
            if (code := instance.process.poll()) is not None:
                raise AssertionError(f"the instance has ended with {code}") from problem
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody answers {method} {path}: {problem!r}") from problem
            threading.Event().wait(_RETRY_SECONDS)


class Clerk:
    """Passes orders on, one after the other, while others are killed."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self.upgrades = 0  # that were accepted: not while one is going on
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def reload(self) -> None:
        token = uuid.uuid4().hex
        self._queue.put(lambda: self._pass_on("/v1/reload", {"token": token}))

    def scale(self, workers: int) -> None:
        self._queue.put(lambda: self._pass_on("/v1/scale", {"workers": workers}))

    def upgrade(self) -> None:
        token = uuid.uuid4().hex
        self._queue.put(lambda: self._upgrade(token))

    def _upgrade(self, token: str) -> None:
        may_refuse = (_ACCEPTED, _REFUSED)
        status = self._pass_on("/v1/upgrade", {"token": token}, may_refuse)
        self.upgrades += status == _ACCEPTED

    def _pass_on(
        self, path: str, body: dict[str, object], expected: tuple[int, ...] = (_ACCEPTED,)
    ) -> int:
        reply = ask(self._instance, "POST", path, body)
        if reply.status not in expected:
            self.problems.append(f"an order was refused: {reply}")
        return reply.status

    def finish(self) -> None:
        """Wait until all are passed on."""
        self._queue.join()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (order := self._queue.get()) is not None:
            try:
                order()
            except AssertionError as problem:
                self.problems.append(str(problem))
            self._queue.task_done()


class Chronicle:
    """All events, read as they come, over any number of servers."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._changed = threading.Condition()
        self._is_over = False
        self.events: list[Event] = []
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, number: int) -> None:
        """Until the event of that number was read."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.events) >= number, _PATIENCE_SECONDS):
                raise AssertionError(f"event {number} has not come, only {len(self.events)}")

    def wait_for_more(self, seconds: float) -> None:
        """Until another event has been read, but not for longer."""
        with self._changed:
            read = len(self.events)
            self._changed.wait_for(lambda: len(self.events) > read, seconds)

    def count(self, kind: str, **fields: Any) -> int:
        return sum(e["type"] == kind and fields.items() <= e.items() for e in self.events)

    def close(self) -> None:
        """After the instance has ended."""
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over:
            try:
                for event in self._instance.events(len(self.events), _PATIENCE_SECONDS):
                    self._take(event)
            except (OSError, http.client.HTTPException, ValueError):  # the server was killed
                pass
            threading.Event().wait(_RETRY_SECONDS)

    def _take(self, event: Event) -> None:
        with self._changed:
            expected = len(self.events) + 1
            if event["id"] != expected:
                self.problems.append(f"event {event['id']} came instead of {expected}: {event}")
            self.events.append(event)
            self._changed.notify_all()
