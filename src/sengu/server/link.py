"""The link to the supervisor: what it holds for us, what we tell it, and what it tells us.

What is sent leaves with the next round of the loop: by then every fact that it rests on has been
recorded, so whoever follows us knows all that we have ordered. Imported by `server.instance` and by
those who own something that has to outlive the server.
"""

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from sengu.errors import SenguError
from sengu.posix import packets
from sengu.posix.descriptors import close_all, copies
from sengu.posix.loop import Loop
from sengu.posix.store import Held
from sengu.wire import supervisor as wire

_PACKETS_AT_ONCE = 256

Hear = Callable[[wire.FromSupervisor, int | None], None]


class Kin(msgspec.Struct, frozen=True):
    """A child of the supervisor that was there before us. `status` is a wait status, once ended."""

    key: str
    pid: int
    pidfd: int | None
    status: int | None


class Inheritance(msgspec.Struct):
    """All that a new server is told before it begins.

    `is_trial`: another server is paused until we are ready. `notes` are held without a descriptor.
    """

    main_pid: int = 0
    is_trial: bool = False
    notes: dict[str, str] = {}
    held: dict[str, Held] = {}
    kin: list[Kin] = []
    signals: list[wire.Signal] = []


def inherit(sock: socket.socket) -> Inheritance:
    """Read what the supervisor has to say first. Raises SenguError."""
    found = Inheritance()
    while True:
        data, descriptors = packets.receive(sock)
        if not data:
            raise SenguError("the supervisor ended while it started this server; start it again")
        match wire.decode_from(data):
            case wire.Hello(version, main_pid, is_trial):
                if version != wire.VERSION:
                    raise SenguError(
                        f"the supervisor speaks version {version} and this server "
                        f"{wire.VERSION}; stop the instance and start it again"
                    )
                found.main_pid, found.is_trial = main_pid, is_trial
            case wire.Holding(name, note):
                if descriptors:
                    found.held[name] = Held(descriptors.pop(0), note)
                else:
                    found.notes[name] = note
            case wire.Child(key, pid, status):
                pidfd = descriptors.pop(0) if descriptors else None
                found.kin.append(Kin(key, pid, pidfd, status))
            case wire.Signal() as signal:
                found.signals.append(signal)
            case wire.Begin():
                return found
            case _:  # of a time before us
                pass
        for fd in descriptors:
            os.close(fd)


class Link:
    """Both directions, without waiting. Implements `posix.store.Store`."""

    def __init__(self, loop: Loop, sock: socket.socket, held: dict[str, Held]) -> None:
        self._loop = loop
        self._socket = sock
        self._held = held
        self._outbox: deque[tuple[bytes, Sequence[int]] | Callable[[], None]] = deque()
        self._is_flush_due = False
        self._postponed: deque[tuple[wire.FromSupervisor, int | None]] = deque()
        self._hear: Hear = lambda message, fd: None
        self._on_loss: Callable[[], None] = lambda: None
        sock.setblocking(False)

    def listen(self, hear: Hear, on_loss: Callable[[], None]) -> None:
        """Call back with each message from now on; `on_loss` when the supervisor has ended."""
        self._hear = hear
        self._on_loss = on_loss
        self._watch()

    @property
    def is_lost(self) -> bool:
        return self._socket.fileno() < 0

    def take(self, name: str) -> Held | None:
        return self._held.pop(name, None)

    def hold(self, name: str, fd: int, note: str = "") -> None:
        self.send(wire.Hold(name, note), (fd,))

    def drop(self, name: str) -> None:
        self.send(wire.Drop(name))

    def names(self, prefix: str) -> list[str]:
        """What is held, begins like that, and was not taken yet."""
        return [name for name in self._held if name.startswith(prefix)]

    def note(self, name: str) -> str:
        """What was noted about what was not taken yet."""
        return self._held[name].note

    def send(self, message: wire.ToSupervisor, descriptors: Iterable[int] = ()) -> None:
        """Say `message` soon; copies of the descriptors go with it. Raises OSError, ValueError."""
        if self.is_lost:
            return
        packet = wire.encode_to(message)
        self._post((packet, copies(descriptors)))

    def then(self, call: Callable[[], None]) -> None:
        """Call when all that was sent before has left: for orders that go another way."""
        self._post(call)

    def _post(self, what: tuple[bytes, Sequence[int]] | Callable[[], None]) -> None:
        self._outbox.append(what)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_at(self._loop.now(), self.flush)

    def flush(self) -> None:
        """Send what the socket takes now; to one that is lost all is sent in vain."""
        self._is_flush_due = False
        while self._outbox:
            first = self._outbox[0]
            if callable(first):
                self._outbox.popleft()
                first()
                continue
            packet, passed = first
            try:
                packets.send(self._socket, packet, passed)
            except BlockingIOError:  # it is busy; EPOLLOUT tells
                self._is_flush_due = True
                break
            except OSError as error:  # else it has ended, which reading tells
                if error.errno == errno.ETOOMANYREFS:  # our user has too many on their way
                    self._is_flush_due = True
                    break
            self._outbox.popleft()
            close_all(passed)
        self._watch()

    def flush_all(self) -> None:
        """Wait until all is sent: our last words, or those before a pause."""
        while self._outbox:
            self.flush()
            if self._outbox:
                select.select([], [self._socket], [])

    def await_resume(self) -> wire.Resume | None:
        """Hear nothing but `Resume`, and the rest later. None: the supervisor has ended."""
        self._socket.setblocking(True)
        try:
            while (heard := self._receive()) is not None:
                if isinstance(heard[0], wire.Resume):
                    return heard[0]
                self._postponed.append(heard)
        finally:
            if not self.is_lost:
                self._socket.setblocking(False)
            self._loop.call_at(self._loop.now(), self._on_ready)
        return None

    def _on_ready(self) -> None:
        if self._outbox:
            self.flush()
        for _ in range(len(self._postponed) + _PACKETS_AT_ONCE):
            if self.is_lost:
                return
            try:
                heard = self._postponed.popleft() if self._postponed else self._receive()
            except BlockingIOError:
                return
            if heard is None:
                self._lose()
                return
            self._hear(*heard)

    def _receive(self) -> tuple[wire.FromSupervisor, int | None] | None:
        """One message and its descriptor; None when there will be no more."""
        try:
            data, descriptors = packets.receive(self._socket)
        except ConnectionResetError:  # killed with our words unread; what it has said comes after
            data, descriptors = packets.receive(self._socket)
        if not data:
            return None
        close_all(descriptors[1:])
        return wire.decode_from(data), descriptors[0] if descriptors else None

    def _lose(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self.flush()
        self._on_loss()

    def _watch(self) -> None:
        if not self.is_lost:
            events = select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)
            self._loop.watch(self._socket.fileno(), events, self._on_ready)
