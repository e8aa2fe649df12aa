"""Deploys at regular times, while something else is measured."""

import threading
import time
from collections.abc import Callable
from typing import Self

_FIRST_SECONDS = 0.2


class Deployer:
    """Calls `request_deploy` from a thread, again and again, as long as the context lasts.

    A deploy that takes longer than that delays the next one.
    """

    def __init__(self, request_deploy: Callable[[], None], every_seconds: float = 1.0) -> None:
        self.count = 0
        self._request_deploy = request_deploy
        self._every_seconds = every_seconds
        self._is_over = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        due = time.monotonic() + _FIRST_SECONDS
        try:
            while not self._is_over.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._every_seconds, time.monotonic())
                self._request_deploy()
                self.count += 1
        except Exception as problem:  # told in the thread that waits for us
            self._problem = problem

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem
