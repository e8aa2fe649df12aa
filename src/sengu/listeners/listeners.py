"""The set of listeners: opened once, kept across generations, laid out for workers.

Workers find them the way systemd passes sockets (sd_listen_fds(3)) and the way Server::Starter
does (SERVER_STARTER_PORT), always both.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from sengu.errors import UsageError
from sengu.listeners.bind import open_listener
from sengu.listeners.listener import Listener, spell_address
from sengu.listeners.slots import Slots
from sengu.model.address import (
    Address,
    InetAddress,
    Inherited,
    ListenerSpec,
    Sockets,
)
from sengu.posix.descriptors import FIRST_PASSED_FD
from sengu.posix.store import Store


class Layout(msgspec.Struct, frozen=True):
    """What a worker gets: descriptor numbers to our own, and the variables that name them.

    `own` are those of the descriptors that only its slot has.
    """

    descriptors: Mapping[int, int]
    environment: Mapping[str, str]
    next_fd: int
    own: Mapping[int, int] = {}


class Listeners:
    """All listeners of the service, in the order in which workers are told of them."""

    def __init__(self, sockets: Sockets, store: Store, slots: int = 1) -> None:
        """Take up what is in the store, and bind the rest: sockets for so many slots at first,
        where each has its own. Raises UsageError.
        """
        self._sockets = sockets
        self._first_slots = max(slots, 1)
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

    def groups(self) -> list[Slots]:
        """The sockets of each listener that has one for each slot."""
        return [listener.slots for listener in self._all if listener.slots is not None]

    def layout(self, slot: int = 0) -> Layout:
        """For a worker in that slot. Raises UsageError if its sockets cannot be bound."""
        descriptors = {}
        pairs = []
        own: dict[int, int] = {}
        for listener in self._all:
            source = listener.socket_of(slot).fileno()
            descriptors[listener.fd] = source
            told = listener.fd
            if listener.fixed_fd is not None:
                descriptors[listener.fixed_fd] = source
                told = listener.fixed_fd
            if listener.slots is not None:
                own |= {listener.fd: source, told: source}
            pairs.append(f"{listener.key}={told}")
        environment = {"SERVER_STARTER_PORT": ";".join(pairs)}
        if self._all:
            in_order = sorted(self._all, key=lambda listener: listener.fd)
            environment["LISTEN_FDS"] = str(len(self._all))
            environment["LISTEN_FDNAMES"] = ":".join(listener.name for listener in in_order)
        next_fd = max([FIRST_PASSED_FD - 1, *descriptors]) + 1
        return Layout(descriptors, environment, next_fd, own)

    def leave(self) -> None:
        """Others go on with them: only our copies are closed, and socket files stay."""
        for listener in self._all:
            listener.leave()
        self._all.clear()

    def close(self) -> None:
        for listener in self._all:
            listener.close()

    def _find(self, spec: ListenerSpec) -> Listener | None:
        """The listener that was bound before our time."""
        if self._sockets.reuseport:
            return None  # its sockets have names of their own
        held = self._store.take(self._name(spec))
        if held is None:
            return None
        device, _, inode = held.note.partition(":")
        file = (int(device), int(inode)) if inode else None
        return Listener(socket.socket(fileno=held.fd), spec.key, spec.name, spec, file)

    def _open(self, spec: ListenerSpec) -> Listener:
        if self._sockets.reuseport:
            return self._open_slots(spec)
        sock = open_listener(spec.address, self._sockets.backlog, self._sockets.path_mode)
        listener = Listener(sock, spec.key, spec.name, spec)
        try:
            self._store.hold(self._name(spec), sock.fileno(), listener.note)
        except OSError as error:
            listener.close()
            raise UsageError(f"cannot keep {spec.address}: {error.strerror}") from error
        return listener

    def _open_slots(self, spec: ListenerSpec) -> Listener:
        assert isinstance(spec.address, InetAddress)  # the command line refuses others
        slots = Slots(self._store, self._name(spec), spec.address, self._sockets.backlog)
        slots.begin(self._first_slots)
        listener = Listener(slots.of(0), spec.key, spec.name, spec)
        listener.slots = slots
        return listener

    def _name(self, spec: ListenerSpec) -> str:
        return f"listener/{self._sockets.listeners.index(spec)}"


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
