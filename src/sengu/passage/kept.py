"""Sockets of a group that we hold, in the store too: they have to outlive us.

Imported by `by_index` and `by_member`.
"""

import os
import socket

from sengu.passage.steering import inode_of
from sengu.posix.procfs import held_sockets
from sengu.posix.store import Store


class Kept:
    """By name, those of before us first. A socket closes only when the store has let go as well."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Take up what is in the store."""
        self.sockets: dict[str, socket.socket] = {}
        self._store = store
        self._prefix = prefix
        self._is_ours = False
        self.note = ""
        for name in sorted(store.names(prefix)):
            held = store.take(name)
            if held is not None:
                self.sockets[name.removeprefix(prefix)] = socket.socket(fileno=held.fd)
                self.note = self.note or held.note

    def keep(self, name: str, sock: socket.socket) -> None:
        """Raises OSError; then it is not kept."""
        self._store.hold(self._prefix + name, sock.fileno())
        self.sockets[name] = sock

    def write(self, note: str) -> None:
        """What whoever comes after us has to know of them, instead of what was written before."""
        self.note = note
        name, sock = next(iter(self.sockets.items()))
        self._store.hold(self._prefix + name, sock.fileno(), note)

    def hold_again(self) -> None:
        """They are needed on, also by whoever comes after us, if the store was to let go."""
        if self._is_ours:
            self._is_ours = False
            for name, sock in self.sockets.items():
                self._store.hold(self._prefix + name, sock.fileno())
            if self.note:
                self.write(self.note)

    def are_only_ours(self) -> bool:
        """Have the store let go; whether it has. Until then closing ours closes nothing."""
        if not self.sockets:
            return True
        if not self._is_ours:
            self._drop()
            return False
        inodes = {inode_of(sock) for sock in self.sockets.values()}
        try:
            return not held_sockets(os.getppid(), inodes)
        except PermissionError:  # executed with capabilities of its own; it has had time to hear
            return True

    def forget(self) -> None:
        """Close those that are left."""
        if not self._is_ours:
            self._drop()
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self.note = ""
        self._is_ours = False

    def _drop(self) -> None:
        self._is_ours = True
        for name in self.sockets:
            self._store.drop(self._prefix + name)
