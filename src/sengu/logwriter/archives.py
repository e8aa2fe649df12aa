"""Rotated files of a log: their names, their order, which are removed, and how they are compressed.

`web.log` becomes `web.log.20261127-013157.482`, the moment in UTC at which it was complete: so one
rename is all that a rotation is, no name ever means another file, and their order is their age.
Imported by the log writer, and by cli to read them.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from datetime import datetime
from typing import NamedTuple

_NAME = re.compile(r"\.([0-9]{8}-[0-9]{6}\.[0-9]{3})(\.gz)?")
_PART = ".gz.part"
_PIECE_BYTES = 1 << 17
_NICE = 10  # whoever serves goes first


class Archive(NamedTuple):
    """A rotated file. `stamp` is its place in the order."""

    stamp: str
    path: str

    @property
    def is_compressed(self) -> bool:
        return self.path.endswith(".gz")


def find_archives(log: str) -> list[Archive]:
    """Those of a log, from the oldest on. One that is there twice is compressed. Raises OSError."""
    directory, name = os.path.split(log)
    found: dict[str, Archive] = {}
    for entry in sorted(os.listdir(directory or ".")):  # x before x.gz
        match = _NAME.fullmatch(entry, len(name)) if entry.startswith(name) else None
        if match is not None:
            found[match[1]] = Archive(match[1], os.path.join(directory, entry))
    return [found[stamp] for stamp in sorted(found)]


def next_archive(log: str, wall: float) -> str:
    """The name for what was written up to now: later than any, also if the clock was set back.

    Raises OSError.
    """
    stamp = _stamp(int(wall * 1000))
    known = find_archives(log)
    if known and known[-1].stamp >= stamp:
        stamp = _stamp(_milliseconds(known[-1].stamp) + 1)
    return f"{log}.{stamp}"


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}.{rest:03d}"


def _milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(f"{stamp.replace('-', 'T')}+00:00").timestamp() * 1000)


def remove_old(log: str, keep: int) -> None:
    """Remove all but the newest. Raises OSError."""
    found = find_archives(log)
    for archive in found[: max(0, len(found) - keep)]:
        plain = archive.path.removesuffix(".gz")
        for path in (plain, plain + ".gz", plain + _PART):
            _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody else tidies up too
        os.unlink(path)


class Compressor:
    """Compresses in a thread, so that meanwhile the log is written."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._thread = threading.Thread()
        self._again = threading.Event()

    def start(self) -> None:
        """Compress what is not compressed yet."""
        self._again.set()
        if not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="compress")
            self._thread.start()

    def finish(self) -> None:
        """Wait until all is done."""
        while self._again.is_set():
            self.start()
            self._thread.join()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._again.is_set():
            self._again.clear()
            with contextlib.suppress(OSError):  # a full disk: what is left is next time's
                compress_all(self._log)


def compress_all(log: str) -> None:
    """Put `x.gz` in the place of each rotated `x`. May be killed at any step. Raises OSError.

    `x.gz` is whole once it has that name; only then `x` goes.
    """
    for archive in find_archives(log):
        plain = archive.path.removesuffix(".gz")
        if not archive.is_compressed:
            _compress(plain)
        if os.path.exists(plain):
            _remove(plain)


def _compress(plain: str) -> None:
    import gzip  # not for those who do not compress: memory

    part = plain + _PART
    try:
        with open(plain, "rb") as source, open(part, "wb") as target:
            found = os.fstat(source.fileno())
            os.fchmod(target.fileno(), found.st_mode & 0o777)
            with contextlib.suppress(PermissionError):
                os.fchown(target.fileno(), found.st_uid, found.st_gid)
            with gzip.GzipFile("", "wb", 6, target, found.st_mtime) as packer:
                shutil.copyfileobj(source, packer, _PIECE_BYTES)
        os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.rename(part, plain + ".gz")
    except OSError:
        _remove(part)
        raise
