"""The control socket: one per instance, for its own user and root only.

Its file is also what makes an instance's name unique: whoever listens on it has the name.
"""

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
from collections.abc import Iterator

from sengu.control.connection import Connection
from sengu.control.routes import Service
from sengu.errors import UsageError
from sengu.listeners.bind import file_identity, is_alive, open_listener
from sengu.model.address import UnixAddress
from sengu.posix.loop import Loop

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_BACKLOG = 1024  # connect(2) on a UNIX socket does not wait for room if it has a timeout
_MODE = 0o600
_OTHERS = 0o077
_PAUSE_SECONDS = 0.5


class ControlListener:
    """Accepts clients of the same user or root, on a socket file of mode 0600."""

    def __init__(self, loop: Loop, path: str, name: str) -> None:
        """Raises UsageError when another instance has the name, or the path can not be bound."""
        self._loop = loop
        self._path = path
        self._name = name
        self._service: Service | None = None
        self._socket, self._identity = self._bind()

    def serve(self, service: Service) -> None:
        self._service = service
        self._watch()

    def heal(self) -> str | None:
        """Bind anew if somebody removed the socket file. Returns what was done, in words."""
        if file_identity(self._path) == self._identity:
            return None
        try:
            fresh, self._identity = self._bind()
        except UsageError as error:
            return f"the control socket {self._path} was removed or replaced, and {error}"
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = fresh
        self._watch()
        return f"the control socket {self._path} was removed; it was bound anew"

    def close(self) -> None:
        if file_identity(self._path) == self._identity:
            os.unlink(self._path)
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def _bind(self) -> tuple[socket.socket, tuple[int, int] | None]:
        """Bind under a lock on the directory: two that start at once must not both succeed."""
        directory = os.path.dirname(self._path)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with _locked(directory):
                if is_alive(self._path):
                    raise UsageError(
                        f"an instance named {self._name!r} is running already ({self._path}); "
                        "stop it, or give this one another --name"
                    )
                sock = open_listener(UnixAddress(self._path), _BACKLOG, _MODE)
                sock.setblocking(False)
                return sock, file_identity(self._path)
        except OSError as error:
            raise UsageError(
                f"cannot make the control socket {self._path}: {error.strerror}; "
                "name another place with --control"
            ) from error

    def _watch(self) -> None:
        self._loop.watch(self._socket.fileno(), select.EPOLLIN, self._accept)

    def _accept(self) -> None:
        assert self._service is not None
        try:
            client, _address = self._socket.accept()
        except BlockingIOError:  # it left before we came
            return
        except OSError:  # out of descriptors: spinning would not free one
            self._loop.unwatch(self._socket.fileno())
            self._loop.call_at(self._loop.now() + _PAUSE_SECONDS, self._watch)
            return
        raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            client.close()
            return
        client.setblocking(False)
        Connection(self._loop, client, self._service)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = os.fstat(fd).st_uid
        if owner not in (0, os.geteuid()):  # who owns the directory can replace what is in it
            raise UsageError(
                f"{directory} belongs to another user (uid {owner}); "
                "name another place for the control socket with --control"
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # In a directory of our own it is another that starts, and done in a moment. In one
            # that others may open, such as /tmp, anybody can hold it for ever.
            if stat.S_IMODE(os.fstat(fd).st_mode) & _OTHERS == 0:
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
