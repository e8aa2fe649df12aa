"""The sockets that workers have asked for at run time: each opened once, kept while a generation
that has asked lives, by whichever server there is.

What there is, for whom, and with whose rights it was opened is noted in the store beside it.
Imported by `server.socket_manager`.
"""

import contextlib
import os
import socket
from collections.abc import Container, Iterator

import msgspec

from sengu.errors import UsageError, describe_error
from sengu.listeners.bind import open_listener
from sengu.listeners.listener import FileIdentity, Listener
from sengu.model.address import Address, ListenerSpec, Sockets, UnixAddress
from sengu.posix.peer import Peer, acting_as
from sengu.server.memory import Keeper

_PREFIX = "managed/"
_MOST = 500  # each is a descriptor of ours and one of the supervisor's


class Note(msgspec.Struct, frozen=True):
    """What a later server has to know of a socket. `opener`: whose rights it was opened with, None
    for the server's own. `file`: device and inode of its socket file.
    """

    address: Address
    generations: tuple[int, ...]
    opener: Peer | None = None
    file: FileIdentity | None = None


_decode = msgspec.json.Decoder(Note).decode


class Managed:
    """One socket, and the generations that have asked for it."""

    def __init__(self, listener: Listener, note: Note) -> None:
        self.listener = listener
        self.note = note

    @property
    def name(self) -> str:
        return f"{_PREFIX}{self.note.address}"

    def close(self) -> None:
        with acting_as(self.note.opener):  # its directory may have become a way to another file
            self.listener.close()


class ManagedSockets:
    """All of them, by address."""

    def __init__(self, keeper: Keeper, sockets: Sockets) -> None:
        """Take up what is in the store. `sockets` has the backlog, modes, and what is allowed."""
        self._keeper = keeper
        self._sockets = sockets
        self._all: dict[Address, Managed] = {}
        for name in keeper.names(_PREFIX):
            held = keeper.take(name)
            assert held is not None
            note = _decode(held.note)
            sock = socket.socket(fileno=held.fd)
            self._all[note.address] = Managed(_listener(sock, note.address, note.file), note)

    def __iter__(self) -> Iterator[Managed]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def give(self, address: Address, generation: int, peer: Peer) -> tuple[Managed, bool]:
        """The socket, for that process of that generation, and whether it was opened just now.

        Raises UsageError, caused by the OSError if the kernel has refused it.
        """
        opener = self._opener(address, peer)
        found = self._all.get(address)
        if found is None or found.listener.has_lost_its_file():
            return self._open(address, found, generation, opener), True
        if opener not in {None, found.note.opener} and opener.uid != _uid(found.note.opener):
            raise UsageError(
                f"{address} was opened by another user's process, so that of user {peer.uid} gets "
                f"it only if that is allowed at the start: --allow-listen {_flag(address)}"
            )
        if generation not in found.note.generations:
            self._keep(found, (*found.note.generations, generation))
        return found, False

    def close_unused(self, living: Container[int]) -> list[str]:
        """Close those that no living generation has asked for; returns what they were bound to."""
        closed = []
        for address, managed in list(self._all.items()):
            left = tuple(number for number in managed.note.generations if number in living)
            if not left:
                closed.append(managed.listener.address)
                del self._all[address]
                managed.close()
                self._keeper.drop(managed.name)
            elif left != managed.note.generations:
                with contextlib.suppress(UsageError):  # the next time, then
                    self._keep(managed, left)
        return closed

    def close(self) -> None:
        """The service has ended."""
        for managed in self._all.values():
            managed.close()
        self._all.clear()

    def leave(self) -> None:
        """Others go on with them."""
        for managed in self._all.values():
            managed.listener.leave()
        self._all.clear()

    def _opener(self, address: Address, peer: Peer) -> Peer | None:
        """Whose rights the socket is to be opened with. Raises UsageError."""
        ours = os.geteuid()
        if peer.uid in {0, ours} or address in self._sockets.allowed:
            return None
        if ours != 0:
            raise UsageError(
                f"user {peer.uid} asks for {address}, but sengu is user {ours} and cannot act as "
                f"another; allow it at the start: --allow-listen {_flag(address)}"
            )
        return peer

    def _open(
        self, address: Address, lost: Managed | None, generation: int, opener: Peer | None
    ) -> Managed:
        if lost is None and len(self._all) >= _MOST:
            raise UsageError(f"{_MOST} sockets were asked for already, which is all there can be")
        try:
            with acting_as(opener):
                sock = open_listener(address, self._sockets.backlog, self._sockets.path_mode)
        except UsageError as error:
            if opener is None:
                raise
            allow = f"or allow it at the start: --allow-listen {_flag(address)}"
            raise UsageError(f"{error}; asked for by user {opener.uid}, {allow}") from (
                error.__cause__
            )
        except OSError as error:  # the rights to become another user were taken from us
            raise UsageError(f"cannot act as user {_uid(opener)}: {error.strerror}") from error
        listener = _listener(sock, address)
        managed = Managed(listener, Note(address, (), opener, listener.file))
        generations = () if lost is None else lost.note.generations
        try:
            self._keep(managed, (*dict.fromkeys((*generations, generation)),))
        except UsageError:
            managed.close()
            raise
        if lost is not None:
            lost.listener.leave()  # its file is not ours any more
        self._all[address] = managed
        return managed

    def _keep(self, managed: Managed, generations: tuple[int, ...]) -> None:
        """Raises UsageError when that cannot be on record; nothing has changed then."""
        note = msgspec.structs.replace(managed.note, generations=generations)
        text = msgspec.json.encode(note).decode()
        try:
            self._keeper.hold(managed.name, managed.listener.socket.fileno(), text)
        except (OSError, ValueError) as error:
            problem = f"cannot keep {note.address}: {describe_error(error)}"
            raise UsageError(problem) from error
        managed.note = note


def _listener(sock: socket.socket, address: Address, file: FileIdentity | None = None) -> Listener:
    return Listener(sock, str(address), "", ListenerSpec(str(address), "", address), file)


def _uid(opener: Peer | None) -> int:
    return os.geteuid() if opener is None else opener.uid


def _flag(address: Address) -> str:
    """As `--allow-listen` has it."""
    if isinstance(address, UnixAddress):
        return address.path
    host, _, port = str(address).removesuffix("/udp").rpartition(":")
    return f"{host}:{'u' if address.udp else ''}{port}"
