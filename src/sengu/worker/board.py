"""A worker's lines on the scoreboard, one lane each.

Written on the path of every request: each call is one or two stores into shared memory, no system
call. Who writes is the only writer; the server reads at its leisure.
"""

from sengu.wire import scoreboard
from sengu.wire.scoreboard import (
    COUNTS,
    LINE,
    LINE_BYTES,
    PROGRESS_AT,
    STARTED_AT,
    TIMES_BYTES,
)


class Lane:
    """One line: the request that one thread has in its hands.

    `requests` counts those begun. Times are monotonic seconds.
    """

    __slots__ = ("_memory", "_offset", "_times", "connections", "requests")

    def __init__(self, memory: memoryview, line: int) -> None:
        self._memory = memory
        self._offset = line * LINE_BYTES
        self._times = memory[self._offset : self._offset + TIMES_BYTES].cast("d")
        self.requests = 0
        self.connections = 0
        LINE.pack_into(memory, self._offset, 0.0, 0.0, 0, 0, b"")

    def begin(self, now: float, head: bytes) -> None:
        """A request is in hand; `head` begins with its request line."""
        self.requests += 1
        LINE.pack_into(self._memory, self._offset, now, now, self.requests, self.connections, head)

    def show(self, started_at: float, now: float, head: bytes) -> None:
        """Of several requests in hand, show this one, which has begun before."""
        counts = self.requests, self.connections
        LINE.pack_into(self._memory, self._offset, started_at, now, *counts, head)

    def progress(self, now: float) -> None:
        """Something of it got done: the application is not stuck."""
        self._times[PROGRESS_AT] = now

    def end(self) -> None:
        self._times[STARTED_AT] = 0.0

    def count(self) -> None:
        """Publish `connections` (and `requests`) while no request is in hand."""
        COUNTS.pack_into(
            self._memory,
            self._offset + scoreboard.COUNTS_OFFSET,
            self.requests,
            self.connections,
        )

    def read(self) -> scoreboard.Line:
        return scoreboard.read_line(self._memory, self._offset // LINE_BYTES)


class Board:
    """All lanes of a worker, and what the server shows to all workers."""

    def __init__(self, memory: memoryview, first_line: int, lanes: int) -> None:
        self._memory = memory
        self.lanes = [Lane(memory, first_line + number) for number in range(lanes)]

    @property
    def is_service_ending(self) -> bool:
        """Whether the service is to end, though this worker may not have to stop yet."""
        return self._memory[scoreboard.ENDING] != 0

    def oldest(self) -> scoreboard.Line | None:
        """The request that has been in hand for longest; None when there is none."""
        busy = [line for line in map(Lane.read, self.lanes) if line.is_busy]
        return min(busy, key=lambda line: line.started_at, default=None)
