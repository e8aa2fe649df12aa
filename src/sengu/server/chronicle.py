"""The chronicle: every event that people may want to read, kept for a while.

The log, `sengu events` and whoever waits for a deploy read the same records.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from sengu.control.api import Record, record_of
from sengu.model.events import Event

_KEPT_RECORDS = 1000

Reader = Callable[[Record], None]


class Chronicle:
    """The last records, numbered from 1, and those who read along."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=_KEPT_RECORDS)
        self._followers: set[_Follower] = set()
        self._untold = 0
        self.last_id = 0

    @property
    def records(self) -> tuple[Record, ...]:
        """All that are kept, the oldest first."""
        return tuple(self._records)

    def restore(self, records: Iterable[Record], last_id: int) -> None:
        """Go on where another chronicle has been left; nobody is told of what it has told."""
        self._records = deque(records, maxlen=_KEPT_RECORDS)
        self.last_id = last_id

    def write(self, event: Event, text: str, wall: float) -> None:
        """Keep `event`, which was at `wall` (UNIX time)."""
        if self._untold == _KEPT_RECORDS:  # the next would push the first of them out
            self.tell()
        self._untold += 1
        self.last_id += 1
        self._records.append(record_of(event, self.last_id, wall, text))

    def since(self, number: int) -> Iterator[Record]:
        """Kept records with a greater id than `number`, in order."""
        return (record for record in self._records if record.id > number)

    def follow(self, reader: Reader) -> Callable[[], None]:
        """Have `tell` give `reader` each new record; returns what ends that."""
        follower = _Follower(reader, self.last_id)
        self._followers.add(follower)
        return lambda: self._followers.discard(follower)

    def tell(self) -> None:
        """Let who reads along have what is new. For when all that follows from it is under way: who
        reads that a deploy has succeeded is to find old workers that were asked to stop.
        """
        self._untold = 0
        for follower in list(self._followers):
            if follower.told_id < self.last_id:
                for record in self.since(follower.told_id):
                    follower.reader(record)
                follower.told_id = self.last_id


class _Follower:
    """One who reads along, and how far it has come."""

    def __init__(self, reader: Reader, told_id: int) -> None:
        self.reader = reader
        self.told_id = told_id
