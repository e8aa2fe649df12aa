"""Appends to one file, and begins another when it is due.

Bytes go from the pipe to the file within the kernel (splice(2)): they are in the one or in the
other, never in this process, so that a kill at any moment neither loses nor doubles any.
Imported by `logwriter.main`.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from sengu.errors import describe_error
from sengu.logwriter.archives import next_archive, remove_old

if TYPE_CHECKING:
    from sengu.logwriter.compress import Compressor

_PIECE_BYTES = 1 << 20
_RETRY_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 600.0  # the clock may be set


class Rules(NamedTuple):
    """When a file is complete, and what becomes of it."""

    size: int | None = None
    age: float | None = None
    keep: int = 5
    compress: bool = False


class Writer:
    """The open file. `complain` tells people what could not be done."""

    def __init__(
        self, path: str, rules: Rules, wall: Callable[[], float], complain: Callable[[str], None]
    ) -> None:
        """Raises OSError."""
        self._path = path
        self._rules = rules
        self._wall = wall
        self._complain = complain
        self._compressor = _compressor(path) if rules.compress else None
        self._retry_at = 0.0
        self._fd = self._open()
        found = os.fstat(self._fd)
        self._written_at = found.st_mtime if found.st_size else wall()
        self._tidy_up()

    def take(self, source: int) -> bool:
        """Move what is in the pipe, at most a piece; False when there will be no more.

        Raises OSError: it is in the pipe still.
        """
        size = os.fstat(self._fd).st_size  # not O_APPEND, which splice(2) refuses
        room = self._room(size)
        if room <= 0 and self._rotate_at_line_end(size):
            size = os.fstat(self._fd).st_size
            room = self._room(size)
        # Too much already, but in the midst of a line: byte by byte up to its end.
        moved = os.splice(source, self._fd, max(1, room), offset_dst=size)
        self._written_at = self._wall()
        return moved > 0

    def rotate_if_old(self) -> None:
        """Begin another file when its time has come, also if nothing is written."""
        size = os.fstat(self._fd).st_size
        if self._is_old(size):
            self._rotate_at_line_end(size)

    def wait_seconds(self) -> float:
        """How long nothing is to be done."""
        age = self._rules.age
        if age is None:
            return _LONGEST_WAIT_SECONDS
        now = _local(self._wall())
        return min(_LONGEST_WAIT_SECONDS, age - now % age + 0.001)

    def reopen(self) -> None:
        """Open the file anew, which somebody may have moved away."""
        if _is_same(self._path, os.fstat(self._fd)):
            return
        try:
            self._turn_to(self._open())
        except OSError as error:
            self._complain(f"cannot reopen {self._path}: {describe_error(error)}; the old is kept")

    def close(self) -> None:
        os.close(self._fd)
        if self._compressor is not None:
            self._compressor.finish()

    def _room(self, size: int) -> int:
        if self._wall() < self._retry_at:
            return _PIECE_BYTES
        if self._is_old(size):
            return 0
        return min(
            _PIECE_BYTES, _PIECE_BYTES if self._rules.size is None else self._rules.size - size
        )

    def _is_old(self, size: int) -> bool:
        age = self._rules.age
        if age is None or not size or self._wall() < self._retry_at:
            return False
        return _local(self._wall()) // age != _local(self._written_at) // age

    def _rotate_at_line_end(self, size: int) -> bool:
        """Whether there is another file now."""
        if os.pread(self._fd, 1, size - 1) != b"\n":
            return False
        try:
            found = os.fstat(self._fd)
            if _is_same(self._path, found):  # else it was moved away already
                os.rename(self._path, next_archive(self._path, self._wall()))
            fd = self._begin(found)
        except OSError as error:
            self._complain(f"cannot rotate {self._path}: {describe_error(error)}; it goes on")
            self._retry_at = self._wall() + _RETRY_SECONDS
            return False
        self._turn_to(fd)
        self._tidy_up()
        return True

    def _open(self) -> int:
        """The file, ours alone. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = self._own(os.open(self._path, flags, 0o666))
        while not _is_same(self._path, os.fstat(fd)):  # moved while we waited for it
            os.close(fd)
            fd = self._own(os.open(self._path, flags, 0o666))
        return fd

    def _begin(self, former: os.stat_result) -> int:
        """The next file, as whoever owns the log wants it. Raises OSError.

        What somebody else has put there meanwhile stays as it is: it may lead to another file.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(self._path, flags, former.st_mode & 0o777)
        except FileExistsError:
            return self._own(os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
        with contextlib.suppress(PermissionError):
            os.fchmod(fd, former.st_mode & 0o777)
            os.fchown(fd, former.st_uid, former.st_gid)
        return self._own(fd)

    def _own(self, fd: int) -> int:
        """Lock the file: two writers would write over each other. Waits for one that is there."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._complain(
                f"another log writer writes to {self._path}; waiting until it ends, "
                "or name another file with --log-file"
            )
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        return fd

    def _turn_to(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd
        self._written_at = self._wall()

    def _tidy_up(self) -> None:
        try:
            remove_old(self._path, self._rules.keep)
        except OSError as error:
            self._complain(f"cannot remove old files of {self._path}: {describe_error(error)}")
        if self._compressor is not None:
            self._compressor.start()


def _compressor(path: str) -> "Compressor":
    from sengu.logwriter.compress import Compressor  # memory, for those who want it only

    return Compressor(path)


def _is_same(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), found)
    except FileNotFoundError:
        return False


def _local(wall: float) -> float:
    """So that a day begins at midnight here."""
    return wall + time.localtime(wall).tm_gmtoff
