"""The set of listeners: opened once, kept across generations, laid out for workers.

Workers find them the way systemd passes sockets (sd_listen_fds(3)) and the way Server::Starter
does (SERVER_STARTER_PORT), always both.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from sengu.errors import UsageError
from sengu.listeners.bind import file_identity, open_listener
from sengu.model.address import (
    Address,
    InetAddress,
    Inherited,
    ListenerSpec,
    Sockets,
    UnixAddress,
)
from sengu.posix.descriptors import FIRST_PASSED_FD
from sengu.posix.store import Store

FileIdentity = tuple[int, int]  # device and inode


class Listener:
    """A bound socket and the names workers know it by. `fd` is its number in a worker."""

    __slots__ = ("_file", "fd", "fixed_fd", "key", "name", "socket", "spec")

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
    def note(self) -> str:
        """What a later server has to know of it: device and inode of its socket file."""
        return "" if self._file is None else f"{self._file[0]}:{self._file[1]}"

    def _identify(self) -> FileIdentity | None:
        return None if self.path is None else file_identity(self.path)

    def has_lost_its_file(self) -> bool:
        """Somebody removed or replaced the socket file: no client finds us any more."""
        return self.path is not None and self._identify() != self._file

    def close(self) -> None:
        """Close our copy, and remove the socket file if it is still ours."""
        if self.path is not None and not self.has_lost_its_file():
            # Its directory may have become another's; the next start finds it stale.
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.socket.close()


class Layout(msgspec.Struct, frozen=True):
    """What a worker gets: descriptor numbers to our own, and the variables that name them."""

    descriptors: Mapping[int, int]
    environment: Mapping[str, str]
    next_fd: int


class Listeners:
    """All listeners of the service, in the order in which workers are told of them."""

    def __init__(self, sockets: Sockets, store: Store) -> None:
        """Take up what is in the store, and bind the rest. Raises UsageError."""
        self._sockets = sockets
        self._store = store
        self._all: list[Listener] = []
        given = [_adopt(inherited, store) for inherited in sockets.inherited]
        try:
            for spec in sockets.listeners:
                self._all.append(_take(spec, given) or self._find(spec) or self._open(spec))
        except UsageError:
            self.close()
            raise
        self._all += given
        _number(self._all)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._all)

    def heal(self) -> list[str]:
        """Bind anew where a socket file was removed; old workers keep the old socket.

        Returns what was done, in words. A failed bind leaves the old listener as it is.
        """
        done = []
        for position, listener in enumerate(self._all):
            if not listener.has_lost_its_file():
                continue
            assert listener.spec is not None
            try:
                fresh = self._open(listener.spec)
            except UsageError as error:
                done.append(f"the file of {listener.path} was removed or replaced, and {error}")
                continue
            fresh.fd = listener.fd
            listener.socket.close()
            self._all[position] = fresh
            done.append(f"the file of {listener.path} was removed; it was bound anew")
        return done

    def layout(self) -> Layout:
        descriptors = {}
        pairs = []
        for listener in self._all:
            source = listener.socket.fileno()
            descriptors[listener.fd] = source
            told = listener.fd
            if listener.fixed_fd is not None:
                descriptors[listener.fixed_fd] = source
                told = listener.fixed_fd
            pairs.append(f"{listener.key}={told}")
        environment = {"SERVER_STARTER_PORT": ";".join(pairs)}
        if self._all:
            in_order = sorted(self._all, key=lambda listener: listener.fd)
            environment["LISTEN_FDS"] = str(len(self._all))
            environment["LISTEN_FDNAMES"] = ":".join(listener.name for listener in in_order)
        next_fd = max([FIRST_PASSED_FD - 1, *descriptors]) + 1
        return Layout(descriptors, environment, next_fd)

    def leave(self) -> None:
        """Others go on with them: only our copies are closed, and socket files stay."""
        for listener in self._all:
            listener.socket.close()
        self._all.clear()

    def close(self) -> None:
        for listener in self._all:
            listener.close()

    def _find(self, spec: ListenerSpec) -> Listener | None:
        """The listener that was bound before our time."""
        held = self._store.take(self._name(spec))
        if held is None:
            return None
        device, _, inode = held.note.partition(":")
        file = (int(device), int(inode)) if inode else None
        return Listener(socket.socket(fileno=held.fd), spec.key, spec.name, spec, file)

    def _open(self, spec: ListenerSpec) -> Listener:
        sock = open_listener(spec.address, self._sockets.backlog, self._sockets.path_mode)
        listener = Listener(sock, spec.key, spec.name, spec)
        try:
            self._store.hold(self._name(spec), sock.fileno(), listener.note)
        except OSError as error:
            listener.close()
            raise UsageError(f"cannot keep {spec.address}: {error.strerror}") from error
        return listener

    def _name(self, spec: ListenerSpec) -> str:
        return f"listener/{self._sockets.listeners.index(spec)}"


def spell_address(sock: socket.socket) -> str:
    """`127.0.0.1:8080`, `[::1]:8080`, `/run/app.sock`, `@name`; UDP ends in `/udp`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}{'/udp' if sock.type == socket.SOCK_DGRAM else ''}"


def _adopt(inherited: Inherited, store: Store) -> Listener:
    held = store.take(f"inherited/{inherited.fd}")
    try:
        if held is None:
            raise OSError(None, "it was closed")
        sock = socket.socket(fileno=held.fd)
    except OSError as error:
        raise UsageError(
            f"descriptor {inherited.fd} was passed to us as {inherited.name!r} but is no socket "
            f"({error.strerror}); check what starts sengu"
        ) from error
    key = spell_address(sock).removesuffix("/udp")
    return Listener(sock, key, inherited.name, None)


def _take(spec: ListenerSpec, given: list[Listener]) -> Listener | None:
    """The listener among `given` that is bound where `spec` asks for, removed from there."""
    for listener in given:
        if _is_bound_to(listener.socket, spec.address):
            given.remove(listener)
            taken = Listener(listener.socket, spec.key, listener.name, None)
            taken.fixed_fd = spec.fixed_fd
            return taken
    return None


def _is_bound_to(sock: socket.socket, address: Address) -> bool:
    """Whether connections to `address` arrive at `sock`, and it could not be bound once more."""
    where = spell_address(sock)
    if where == str(address):
        return True
    # `ListenStream=8080` in a unit is one socket for IPv6 and for all of IPv4 (systemd.socket(5)).
    if sock.family != socket.AF_INET6 or not isinstance(address, InetAddress):
        return False
    every = InetAddress("::", address.port, address.udp, ipv6=True)
    is_for_both = not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return is_for_both and address.host == "0.0.0.0" and where == str(every)


def _number(listeners: Sequence[Listener]) -> None:
    """Give each its number from 3 on; who has asked for one of these gets it."""
    numbers = range(FIRST_PASSED_FD, FIRST_PASSED_FD + len(listeners))
    asked = {listener.fixed_fd for listener in listeners}
    free = iter([number for number in numbers if number not in asked])
    for listener in listeners:
        fixed = listener.fixed_fd
        listener.fd = fixed if fixed is not None and fixed in numbers else next(free)
