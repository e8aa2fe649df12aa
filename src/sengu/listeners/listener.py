"""One listener: a bound socket, the names workers know it by, and its file if it has one.

Imported by `listeners` only, but for how an address is spelt.
"""

import contextlib
import os
import socket

from sengu.listeners.bind import file_identity
from sengu.listeners.slots import Slots
from sengu.model.address import ListenerSpec, UnixAddress

FileIdentity = tuple[int, int]  # device and inode


class Listener:
    """A bound socket and the names workers know it by. `fd` is its number in a worker.

    With `slots` the socket is the first one of these, and each slot has its own.
    """

    __slots__ = ("_file", "fd", "fixed_fd", "key", "name", "slots", "socket", "spec")

    def __init__(
        self,
        sock: socket.socket,
        key: str,
        name: str,
        spec: ListenerSpec | None,
        file: FileIdentity | None = None,
    ) -> None:
        """`file` is what the socket was bound to; None: what is at its path now."""
        self.socket = sock
        self.key = key
        self.name = name
        self.spec = spec
        self.fixed_fd = spec.fixed_fd if spec else None
        self.fd = -1
        self.slots: Slots | None = None
        self._file = file or self._identify()

    @property
    def path(self) -> str | None:
        """The socket file that is ours to remove; None for all others."""
        if self.spec is None or not isinstance(self.spec.address, UnixAddress):
            return None
        return None if self.spec.address.is_abstract else self.spec.address.path

    @property
    def address(self) -> str:
        return spell_address(self.socket)

    @property
    def file(self) -> FileIdentity | None:
        """The socket file that it was bound to."""
        return self._file

    @property
    def note(self) -> str:
        """What a later server has to know of it: device and inode of its socket file."""
        return "" if self._file is None else f"{self._file[0]}:{self._file[1]}"

    def _identify(self) -> FileIdentity | None:
        return None if self.path is None else file_identity(self.path)

    def socket_of(self, slot: int) -> socket.socket:
        """What a worker in that slot gets. Raises UsageError if that cannot be bound."""
        return self.socket if self.slots is None else self.slots.of(slot)

    def has_lost_its_file(self) -> bool:
        """Somebody removed or replaced the socket file: no client finds us any more."""
        return self.path is not None and self._identify() != self._file

    def close(self) -> None:
        """Close our copy, and remove the socket file if it is still ours."""
        if self.path is not None and not self.has_lost_its_file():
            # Its directory may have become another's; the next start finds it stale.
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.leave()

    def leave(self) -> None:
        """Close our copy; others go on with it."""
        if self.slots is not None:
            self.slots.leave()
        self.socket.close()


def spell_address(sock: socket.socket) -> str:
    """`127.0.0.1:8080`, `[::1]:8080`, `/run/app.sock`, `@name`; UDP ends in `/udp`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}{'/udp' if sock.type == socket.SOCK_DGRAM else ''}"
