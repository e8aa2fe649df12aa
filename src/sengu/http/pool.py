"""Threads that answer, when there are several: each with a lane of its own.

A connection belongs to the loop, or to one thread, never to both: it goes over by `put`, and comes
back by `returned` with what is to become of it. Made by `loop`.
"""

import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Iterator

from sengu.http.connection import Connection
from sengu.http.environ import Environ
from sengu.http.exchange import Exchange, Next

Returned = tuple[Connection, Next]


class Pool:
    """`wake_fd` is readable when a connection has come back."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._waiting: queue.SimpleQueue[tuple[Connection, Environ] | None] = queue.SimpleQueue()
        self._returned: deque[Returned] = deque()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Daemons: a request that does not end must not keep the worker from ending.
        self._threads = [
            threading.Thread(target=self._work, args=(exchange,), name=f"web-{number}", daemon=True)
            for number, exchange in enumerate(exchanges)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, connection: Connection, environ: Environ) -> None:
        self._waiting.put((connection, environ))

    def returned(self) -> Iterator[Returned]:
        """Those that have come back."""
        os.eventfd_read(self.wake_fd)
        while self._returned:
            yield self._returned.popleft()

    def close(self, seconds: float) -> None:
        """Let the threads end; wait `seconds` for those that have nothing to do."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(seconds)
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self.wake_fd)

    def _work(self, exchange: Exchange) -> None:
        while (work := self._waiting.get()) is not None:
            connection, environ = work
            try:
                step = exchange.answer(connection, environ)
            except Exception:  # a mistake of ours costs one client its answer
                traceback.print_exc()
                step = Next.RESET
            self._returned.append((connection, step))
            os.eventfd_write(self.wake_fd, 1)
