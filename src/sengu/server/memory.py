"""What a server knows, kept so that the next one knows it too. Imported by `server.instance`."""

import traceback
from collections.abc import Callable
from typing import Protocol

from sengu.planner.reduce import Fact
from sengu.posix.store import Store
from sengu.server.chronicle import Chronicle
from sengu.server.core import Core
from sengu.server.journal import Entry, Journal, Snapshot
from sengu.server.past import Past

_NAME = "journal"


class Keeper(Store, Protocol):
    """A store that takes its time."""

    def then(self, call: Callable[[], None]) -> None:
        """Call when all that was said before has left."""


class Memory:
    """The journal in the store. `is_new`: nobody was here before us.

    As long as a new one is on its way there, facts are written to the former one as well.
    """

    def __init__(self, store: Keeper) -> None:
        """Raises OSError."""
        self._store = store
        self._former: Journal | None = None
        self._last_signal = 0
        held = store.take(_NAME)
        self.is_new = held is None
        if held is None:
            self._journal = Journal.create()
            store.hold(_NAME, self._journal.fd)
        else:
            self._journal = Journal(held.fd)

    def write(self, fact: Fact, at: float, wall: float) -> None:
        """Raises OSError."""
        self._journal.write(fact, at, wall, self._last_signal)
        if self._former is not None:
            self._former.write(fact, at, wall, self._last_signal)

    def is_news(self, serial: int) -> bool:
        """Whether the signal is another than those that are on record; it is with the next fact."""
        is_news = serial > self._last_signal
        self._last_signal = max(serial, self._last_signal)
        return is_news

    def recall(self, core: Core, chronicle: Chronicle, past: Past) -> int:
        """Let them know all that was known; returns how many facts could not be understood.

        Such a fact has ended the server before us, or is a newer version's. It is left out: all
        servers to come would end of it too, and with them the service. Raises SenguError.
        """
        bad = 0
        for line in self._journal.read():
            match line:
                case Snapshot(observed, records, last_id, known):
                    core.restore(observed)
                    chronicle.restore(records, last_id)
                    past.restore(known)
                case Entry(fact, at, wall):
                    try:
                        core.replay(fact, at, wall)
                    except Exception:  # whatever it is, the workers are worth more than one fact
                        traceback.print_exc()
                        bad += 1
            self._last_signal = line.last_signal
        return bad + self._journal.unknown

    def shorten(self, core: Core, chronicle: Chronicle, past: Past) -> None:
        """Begin anew with what all has come to, when it is time and there is room for it."""
        if not self._journal.is_long or self._former is not None:
            return
        snapshot = Snapshot(
            core.observed, chronicle.records, chronicle.last_id, past, self._last_signal
        )
        try:
            journal = Journal.create(snapshot)
        except OSError:  # EMFILE; whoever ended of it would leave the same to the next server
            self._journal.go_on()
            return
        try:
            self._store.hold(_NAME, journal.fd)
        except OSError:
            journal.close()
            self._journal.go_on()
            return
        self._former, self._journal = self._journal, journal
        self._store.then(self._close_former)

    def cut(self) -> None:
        """Forget what another has written since we have: it was on trial, and has failed."""
        self._journal.cut()

    def _close_former(self) -> None:
        if self._former is not None:
            self._former.close()
            self._former = None
