"""Accepts the control API's clients: the instance's own user and root, nobody else.

The socket outlives us: the supervisor holds it, and clients wait in its queue while one server
follows another. Imported by the server.
"""

import os
import select
import socket
import struct

from sengu.control.bind import open_control
from sengu.control.connection import Connection
from sengu.control.routes import Service
from sengu.errors import UsageError
from sengu.listeners.bind import file_identity
from sengu.posix.loop import Loop

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_PAUSE_SECONDS = 0.5

Identity = tuple[int, int]  # device and inode of a socket file


class ControlListener:
    """Serves a socket made by `open_control`, and looks after its file."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        path: str,
        name: str,
        identity: Identity | None = None,
    ) -> None:
        """`identity` is that of the socket's file; None: what is at `path` now is that file."""
        self._loop = loop
        self._path = path
        self._name = name
        self._service: Service | None = None
        self.socket = sock
        self.identity = identity or file_identity(path)

    def serve(self, service: Service) -> None:
        self._service = service
        self._watch()

    def heal(self) -> str | None:
        """Bind anew if somebody removed the socket file. Returns what was done, in words.

        `socket` and `identity` are other ones then.
        """
        if file_identity(self._path) == self.identity:
            return None
        try:
            fresh = open_control(self._path, self._name)
        except UsageError as error:
            return f"the control socket {self._path} was removed or replaced, and {error}"
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.socket, self.identity = fresh, file_identity(self._path)
        self._watch()
        return f"the control socket {self._path} was removed; it was bound anew"

    def close(self) -> None:
        """The service is over: its name is free."""
        if file_identity(self._path) == self.identity:
            os.unlink(self._path)
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()

    def _watch(self) -> None:
        self._loop.watch(self.socket.fileno(), select.EPOLLIN, self._accept)

    def _accept(self) -> None:
        assert self._service is not None
        try:
            client, _address = self.socket.accept()
        except BlockingIOError:  # it left before we came
            return
        except OSError:  # out of descriptors: spinning would not free one
            self._loop.unwatch(self.socket.fileno())
            self._loop.call_at(self._loop.now() + _PAUSE_SECONDS, self._watch)
            return
        raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            client.close()
            return
        client.setblocking(False)
        Connection(self._loop, client, self._service)
