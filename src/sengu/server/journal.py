"""The journal: every fact, written down before anything is done about it.

It is a memory file that the supervisor holds. A server that takes over reads what its predecessor
wrote, up to the moment of that one's death, and knows what it knew. Nobody else reads it, but that
may be another version: so fields of facts have names, and lists of values only grow at their end.

Each entry is its length and MessagePack. From time to time a snapshot takes the place of all that
was before it.
"""

import os
import struct
from collections.abc import Iterator

import msgspec

from sengu.control.api import Record
from sengu.errors import SenguError
from sengu.model import events as ev
from sengu.model.observed import Observed
from sengu.planner.reduce import Fact
from sengu.server.past import Past

_LENGTH = struct.Struct("<I")
# Some five thousand facts, which a new server takes in within a fraction of a second.
_LONG_BYTES = 512 * 1024


class Entry(msgspec.Struct, frozen=True, array_like=True, tag="fact"):
    """A fact and when it was taken in: monotonic seconds, and UNIX time for people.

    `last_signal` is the serial number of the last signal that had come by then.
    """

    fact: Fact
    at: float
    wall: float
    last_signal: int = 0


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """What the facts up to here have come to."""

    observed: Observed
    records: tuple[Record, ...]
    last_id: int
    past: Past
    last_signal: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry | Snapshot).decode


class Journal:
    """Written at its end, by one server at a time. It owns `fd`.

    `unknown` counts the entries that a newer version has written and this one does not understand.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.unknown = 0
        self._end = os.fstat(fd).st_size
        self._long_at = _LONG_BYTES

    @classmethod
    def create(cls, snapshot: Snapshot | None = None) -> "Journal":
        """A new one, which begins with `snapshot`. Raises OSError; nothing is left then."""
        journal = cls(os.memfd_create("sengu-journal", os.MFD_CLOEXEC))
        try:
            if snapshot is not None:
                journal._append(_encode(snapshot))
                journal._long_at += journal._end
        except OSError:
            journal.close()
            raise
        return journal

    @property
    def is_long(self) -> bool:
        """It is time for another, with a snapshot: since the last one much has been written."""
        return self._end >= self._long_at

    def go_on(self) -> None:
        """There can be no other now: it is long when as much again has been written."""
        self._long_at = self._end + _LONG_BYTES

    def write(self, fact: Fact, at: float, wall: float, last_signal: int = 0) -> None:
        """Raises OSError. A beat is not worth it: a new server starts to count them anew."""
        if not isinstance(fact, ev.WorkerBeat):
            self._append(_encode(Entry(fact, at, wall, last_signal)))

    def read(self) -> Iterator[Snapshot | Entry]:
        """All that is written. Half an entry at the end is cut off: its writer was killed there.

        Raises SenguError when it begins with what this version does not understand, as nothing
        that follows would mean anything then.
        """
        content = memoryview(os.pread(self.fd, self._end, 0))
        frames = list(_frames(content))
        self._end = frames[-1].stop if frames else 0
        os.ftruncate(self.fd, self._end)
        return self._understand(content, frames)

    def cut(self) -> None:
        """Drop what another has written behind our last entry."""
        os.ftruncate(self.fd, self._end)

    def close(self) -> None:
        os.close(self.fd)

    def _understand(self, content: memoryview, frames: list[slice]) -> Iterator[Snapshot | Entry]:
        for frame in frames:
            try:
                line = _decode(content[frame])
            except msgspec.ValidationError as error:
                if frame is frames[0]:
                    raise SenguError(
                        f"the journal of another version cannot be read: {error}; "
                        "stop and start the service instead"
                    ) from error
                self.unknown += 1
                continue
            if isinstance(line, Snapshot):
                self._long_at = frame.stop + _LONG_BYTES
            yield line

    def _append(self, entry: bytes) -> None:
        # At a place of our own: the descriptor's, which servers share, may be behind half an entry.
        data = _LENGTH.pack(len(entry)) + entry
        while data:
            written = os.pwrite(self.fd, data, self._end)
            self._end += written
            data = data[written:]


def _frames(content: memoryview) -> Iterator[slice]:
    """Where entries are, as far as they are whole."""
    start = _LENGTH.size
    while start <= len(content):
        stop = start + _LENGTH.unpack_from(content, start - _LENGTH.size)[0]
        if stop > len(content):
            return
        yield slice(start, stop)
        start = stop + _LENGTH.size
