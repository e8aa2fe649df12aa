"""The scoreboard: shared memory in which each worker keeps one line for each request in its hands.

A worker has as many lines as its application has lanes, one after the other. It alone writes them;
the server and the title only look. A torn read shows a wrong number once, and nobody acts on one.
The last line is the server's own, which all workers read, whenever they were born.
"""

import struct

import msgspec

LINE_BYTES = 128
# Sparse: memory is taken by the lines that are written, not by those that could be.
LINES = (1 << 18) - 1
SIZE_BYTES = (LINES + 1) * LINE_BYTES
# Not 0 as soon as the service is to end. From the end of the memory on.
ENDING = -LINE_BYTES

# started_at and progress_at (monotonic seconds, 0 when idle), requests, connections, the start of
# the request's head. All processes are of one machine: its own byte order, no hidden padding.
HEAD_BYTES = 96
LINE = struct.Struct(f"=ddQI4x{HEAD_BYTES}s")
# The head of what is no request: a worker that says that it goes on.
HEARTBEAT = "heartbeat"
# The beginning of a line as an array of doubles: a start of 0.0 ends a request.
STARTED_AT, PROGRESS_AT = 0, 1
TIMES_BYTES = 16
COUNTS = struct.Struct("=QI")
COUNTS_OFFSET = 16


class Line(msgspec.Struct, frozen=True):
    """One line, read. `request` is method and path, printable; a query may hold secrets."""

    started_at: float
    progress_at: float
    requests: int
    connections: int
    request: str

    @property
    def is_busy(self) -> bool:
        return self.started_at > 0.0


def read_line(memory: bytes | bytearray | memoryview, number: int) -> Line:
    """Read line `number` of a scoreboard."""
    started_at, progress_at, requests, connections, head = LINE.unpack_from(
        memory, number * LINE_BYTES
    )
    return Line(started_at, progress_at, requests, connections, request_text(head))


def request_text(head: bytes) -> str:
    """What a line shows of a request that begins with `head`."""
    text = head[:HEAD_BYTES].decode("latin-1")
    for end in ("\0", "\r", "\n", " HTTP/1.", "?"):
        text = text.partition(end)[0]
    return "".join(sign if sign.isprintable() else "." for sign in text)
