"""Reads a log file that is being written and rotated: its end, and then all that comes, once.

Knows what the log writer does (`sengu.logwriter.archives`), and what logrotate(8) may do: move the
file away, or cut it. Imported by `cli.logs`.
"""

import gzip
import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import IO

from sengu.logwriter.archives import Archive, find_archives

_File = IO[bytes] | gzip.GzipFile

_PIECE_BYTES = 1 << 16
_ISIZE_BYTES = 4  # at the end of a gzip file: the size of what is in it (RFC 1952 §2.3.1)


class LogReader:
    """A place in a log. `lost` is told when files were removed before they were read.

    `_seen` is the newest rotated file that there was when the present one was opened.
    """

    def __init__(self, path: str, lost: Callable[[], None]) -> None:
        """Raises OSError."""
        self._path = path
        self._lost = lost
        self._file: _File | None = None
        self._seen = ""
        self._rest = b""
        while not self._open(self._newest()):  # it was rotated just now, or is not there
            if not os.path.exists(path):
                self._seen = self._newest()
                break

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def last(self, count: int) -> Iterator[bytes]:
        """The last whole lines up to now, rotated files included; what follows is `news`."""
        found: list[list[bytes]] = []
        if self._file is not None:
            lines = _last_lines(self._file, count + 1)
            if lines and not lines[-1].endswith(b"\n"):
                self._rest = lines.pop()
            found.append(lines[-count:] if count else [])
        missing = count - sum(map(len, found))
        for archive in reversed(find_archives(self._path)):
            if missing <= 0:
                break
            if archive.stamp > self._seen:  # rotated since: that is news
                continue
            try:
                with closing(_open_archive(archive)) as file:
                    found.append(_last_lines(file, missing))
            except FileNotFoundError:  # removed, as those before it will be
                break
            missing -= len(found[-1])
        for lines in reversed(found):
            yield from lines

    def rest(self) -> bytes:
        """A line at the end that is not whole yet."""
        return self._rest

    def news(self) -> Iterator[bytes]:
        """Whole lines that have come since, in pieces. Raises OSError."""
        while True:
            was_replaced = self._was_replaced()  # first: then all that was written to it is there
            if self._file is not None:
                yield from self._whole(self._file)
            if not was_replaced:
                return
            if self._rest:  # nobody will end that line any more
                yield self._rest + b"\n"
                self._rest = b""
            yield from self._catch_up()
            if self._file is None:
                return

    def _was_replaced(self) -> bool:
        if self._file is None:
            return True
        own = os.fstat(self._file.fileno())
        try:
            found = os.stat(self._path)
        except FileNotFoundError:  # in the midst of it
            return False
        if os.path.samestat(own, found):
            if found.st_size < self._file.tell():  # cut
                self._file.seek(0)
            return False
        # logrotate may make a new file before the writer hears of it, and goes over.
        return found.st_size > 0 or bool(self._newer())

    def _newer(self) -> list[Archive]:
        return [one for one in find_archives(self._path) if one.stamp > self._seen]

    def _newest(self) -> str:
        archives = find_archives(self._path)
        return archives[-1].stamp if archives else ""

    def _catch_up(self) -> Iterator[bytes]:
        """Read what was rotated meanwhile, and open the file of now."""
        own, self._file = self._file, None
        if own is not None:
            with closing(own):
                newer = self._newer()
                place = next((i for i, one in enumerate(newer) if _holds(one, own)), None)
            if place is not None:
                self._seen = newer[place].stamp
            elif newer:
                self._lost()
        while not self._open(self._seen):
            newer = self._newer()
            if not newer:
                return  # there is no file just now
            for archive in newer:
                yield from self._read_archive(archive)

    def _read_archive(self, archive: Archive) -> Iterator[bytes]:
        try:
            file = _open_archive(archive)
        except FileNotFoundError:
            self._lost()
        else:
            with closing(file):
                yield from self._whole(file)
        self._seen = archive.stamp

    def _open(self, seen: str) -> bool:
        """Open the file of now, if nothing newer than that was rotated."""
        try:
            file = open(self._path, "rb", buffering=0)  # noqa: SIM115 - ours until `close`
        except FileNotFoundError:
            return False
        if self._newest() > seen:
            file.close()
            return False
        self._file = file
        self._seen = seen
        return True

    def _whole(self, file: _File) -> Iterator[bytes]:
        while data := file.read(_PIECE_BYTES):
            whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
            if newline:
                yield whole + newline


def _open_archive(archive: Archive) -> _File:
    """Raises FileNotFoundError when it was removed."""
    if not archive.is_compressed:
        try:
            return open(archive.path, "rb")
        except FileNotFoundError:  # compressed just now
            pass
    return gzip.open(archive.path.removesuffix(".gz") + ".gz", "rb")


def _holds(archive: Archive, own: _File) -> bool:
    """Whether it is that file, or that compressed; as far as can be told from its size."""
    found = os.fstat(own.fileno())
    with suppress(FileNotFoundError):  # compressed just now
        if not archive.is_compressed:
            return os.path.samestat(os.stat(archive.path), found)
    try:
        with open(archive.path.removesuffix(".gz") + ".gz", "rb") as file:
            file.seek(-_ISIZE_BYTES, io.SEEK_END)
            return int.from_bytes(file.read(), "little") == found.st_size % (1 << 32)
    except FileNotFoundError:  # removed just now
        return False


def _last_lines(file: _File, count: int) -> list[bytes]:
    """The last lines of a file, which is at its end then. `count` is not 0."""
    if isinstance(file, gzip.GzipFile):  # it can only be read from the beginning on
        return list(deque(file, maxlen=count))
    end = position = file.seek(0, io.SEEK_END)
    pieces: deque[bytes] = deque()
    newlines = 0
    while position and newlines <= count:
        start = max(0, position - _PIECE_BYTES)
        file.seek(start)
        piece = _read_exactly(file, position - start)
        newlines += piece.count(b"\n")
        pieces.appendleft(piece)
        position = start
    file.seek(end)
    return list(io.BytesIO(b"".join(pieces)))[-count:]


def _read_exactly(file: _File, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return data
