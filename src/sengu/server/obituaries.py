"""Obituaries: who has died with something in hand is noted where workers find it.

In a memory file, which the supervisor holds, so that it outlives servers. Imported by
`server.stage`.
"""

import contextlib
from collections.abc import Callable, Iterable

from sengu.model import events as ev
from sengu.model.observed import Observed
from sengu.posix import clock
from sengu.posix.store import Store
from sengu.posix.swap_file import SwapFile, make_swap_file
from sengu.wire import obituaries as wire
from sengu.wire.scoreboard import HEARTBEAT, Line

_NAME = "obituaries"


class Obituaries:
    """Written before a worker's end is on record, and once for each worker: so a server that is
    killed in between has its successor write what it has not.
    """

    def __init__(self, store: Store, observed: Callable[[], Observed]) -> None:
        """Raises OSError."""
        held = store.take(_NAME)
        if held is None:
            self.file = make_swap_file("sengu-obituaries")
            store.hold(_NAME, self.file.fd)
        else:
            self.file = SwapFile(held.fd)
        self._observed = observed

    def write(self, exited: ev.WorkerExited, lines: Iterable[Line], *, was_asked: bool) -> None:
        """`lines` are the worker's. `was_asked`: it was to end, and may have done as told."""
        requests = [line.request for line in lines if line.is_busy and line.request != HEARTBEAT]
        if not requests or (was_asked and exited.exit_code == 0):
            return
        obituary = wire.Obituary(
            exited.worker, tuple(requests), self._how(exited), exited.last_words, clock.wall()
        )
        _, data = self.file.read()
        written = wire.encode(wire.add(wire.decode(data), obituary))
        # Without memory for it, whoever asks does not find it.
        with contextlib.suppress(OSError):
            self.file.write(written)

    def _how(self, exited: ev.WorkerExited) -> str:
        worker = self._observed().workers.get(exited.worker)
        if worker is None or not worker.condemned or exited.exit_code is not None:
            return exited.how
        return f"killed: {worker.condemned}"
