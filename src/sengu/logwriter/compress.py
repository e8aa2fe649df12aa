"""Compresses rotated files beside the writing. Imported by the log writer if it is to compress."""

import contextlib
import gzip
import os
import shutil
import threading

from sengu.logwriter.archives import PART_SUFFIX, find_archives, remove

_PIECE_BYTES = 1 << 17
_NICE = 10  # whoever serves goes first


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
            remove(plain)


def _compress(plain: str) -> None:
    part = plain + PART_SUFFIX
    remove(part)  # of a writer that was killed
    try:
        # "x": nobody can put a link there that leads to another file.
        with open(plain, "rb") as source, open(part, "xb") as target:
            found = os.fstat(source.fileno())
            os.fchmod(target.fileno(), found.st_mode & 0o777)
            with contextlib.suppress(PermissionError):
                os.fchown(target.fileno(), found.st_uid, found.st_gid)
            with gzip.GzipFile("", "wb", 6, target, found.st_mtime) as packer:
                shutil.copyfileobj(source, packer, _PIECE_BYTES)
        os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.rename(part, plain + ".gz")
    except OSError:
        remove(part)
        raise
