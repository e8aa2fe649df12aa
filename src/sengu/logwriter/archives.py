"""Rotated files of a log: their names, their order, and which are removed.

`web.log` becomes `web.log.20261127-013157.482`, the moment in UTC at which it was complete: so one
rename is all that a rotation is, no name ever means another file, and their order is their age.
Imported by the log writer, and by cli to read them.
"""

import contextlib
import os
import re
import time
from typing import NamedTuple

_NAME = re.compile(r"\.([0-9]{8}-[0-9]{6}\.[0-9]{3})(\.gz)?")
PART_SUFFIX = ".gz.part"


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
    from datetime import datetime  # only when the clock was set back: memory

    return round(datetime.fromisoformat(f"{stamp.replace('-', 'T')}+00:00").timestamp() * 1000)


def remove_old(log: str, keep: int) -> None:
    """Remove all but the newest. Raises OSError."""
    found = find_archives(log)
    for archive in found[: max(0, len(found) - keep)]:
        plain = archive.path.removesuffix(".gz")
        for path in (plain, plain + ".gz", plain + PART_SUFFIX):
            remove(path)


def remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody else tidies up too
        os.unlink(path)
