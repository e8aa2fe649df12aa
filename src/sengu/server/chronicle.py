"""The chronicle: every event that people may want to read, kept for a while and told at once.

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
        self._readers: dict[int, Reader] = {}
        self._next_reader = 0
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
        """Tell of `event`, which was at `wall` (UNIX time)."""
        self.last_id += 1
        record = record_of(event, self.last_id, wall, text)
        self._records.append(record)
        for reader in list(self._readers.values()):
            reader(record)

    def since(self, number: int) -> Iterator[Record]:
        """Kept records with a greater id than `number`, in order."""
        return (record for record in self._records if record.id > number)

    def follow(self, reader: Reader) -> Callable[[], None]:
        """Tell `reader` of each new record; returns what ends that."""
        key = self._next_reader
        self._next_reader += 1
        self._readers[key] = reader
        return lambda: self._readers.pop(key, None) and None
