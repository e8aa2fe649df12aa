"""The files we keep for others: pid file and status file of Server::Starter, logs of workers."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable

from sengu.errors import UsageError
from sengu.model.application import Privileges
from sengu.posix.store import Store


class PidFile:
    """Holds the main pid and a lock on itself as long as the instance lives.

    `--stop` waits for the lock, which is the open file's: the supervisor holds it.
    """

    def __init__(self, path: str, store: Store, main_pid: int) -> None:
        """Raises UsageError when it can not be written, or another instance has it."""
        self._path = path
        held = store.take("pidfile")
        if held is not None:
            self._fd = held.fd
            return
        self._lock()
        while not self._is_in_place():  # who held it has removed it before we had the lock
            os.close(self._fd)
            self._lock()
        try:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, b"%d\n" % main_pid)
            store.hold("pidfile", self._fd)
        except OSError as error:
            self.remove()
            raise UsageError(f"cannot write the pid file {path}: {error.strerror}") from error

    def _lock(self) -> None:
        path = self._path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(
                f"cannot write the pid file {path}: {error.strerror}; name another with --pid-file"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise UsageError(
                f"the pid file {path} is held by a running instance, pid {holder or 'unknown'}; "
                "stop that first or name another with --pid-file"
            ) from None

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove the file if it is still the one we hold, then give up the lock."""
        try:
            if self._is_in_place():
                os.unlink(self._path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EROFS):
                raise
        os.close(self._fd)


class StatusFile:
    """`generation:pid` lines, replaced as a whole by rename. Trouble with it is never fatal."""

    def __init__(self, path: str, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._written: bytes | None = None
        self._failed: bytes | None = None  # content that people have been warned about

    def write(self, workers: Iterable[tuple[int, int]]) -> None:
        """Write (generation, pid) pairs if they differ from what is there."""
        content = b"".join(b"%d:%d\n" % pair for pair in sorted(workers))
        if content == self._written:
            return
        temporary = f"{self._path}.new"  # one name, so that a killed server's is written over
        try:
            with open(temporary, "xb", opener=_create) as stream:
                stream.write(content)
            os.rename(temporary, self._path)
        except OSError as error:
            _unlink(temporary)
            if content != self._failed:  # it is tried again and again, but told once
                self._failed = content
                self._warn(f"cannot write the status file {self._path}: {error.strerror}")
            return
        self._written, self._failed = content, None

    def remove(self) -> None:
        if self._written is not None:
            _unlink(self._path)


def make_for_workers(paths: Iterable[str], privileges: Privileges) -> None:
    """Make the files that are not there, and give them to the workers' user. Raises OSError.

    What is there stays whose it is: in a directory of that user it may be a link to a file of ours.
    """
    for path in paths:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        try:
            if privileges.uid is not None or privileges.gid is not None:
                os.fchown(
                    fd,
                    -1 if privileges.uid is None else privileges.uid,
                    -1 if privileges.gid is None else privileges.gid,
                )
        finally:
            os.close(fd)


def _create(path: str, flags: int) -> int:
    """Never write through what is there: in /tmp it may be somebody's link to a file of ours."""
    _unlink(path)  # or what one of our pid, who was killed, has left
    return os.open(path, flags, 0o666)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # never made, already gone, or the directory is not ours any more
        return
