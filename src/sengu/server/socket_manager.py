"""The socket manager: opens what workers ask for at run time, and hands it to whoever asks.

Its own listener is in the store, and its name in the environment of all workers: who connects while
no server is there waits in its queue, and is answered by the next. A connection is for one request
(`wire.sockets`), and only processes of our own workers are heard. Imported by `server.instance`.
"""

import array
import errno
import math
import os
import select
import socket
from collections.abc import Callable

import msgspec

from sengu.errors import UsageError
from sengu.model.address import Sockets
from sengu.model.observed import Observed
from sengu.posix import packets
from sengu.posix.descriptors import close_at_once
from sengu.posix.loop import Loop, Timer
from sengu.posix.peer import Peer, has_ended, peer_of
from sengu.server.askers import Askers
from sengu.server.managed import ManagedSockets
from sengu.server.memory import Keeper
from sengu.wire import sockets as wire

_NAME = "sockets"
_BACKLOG = 4096
_AT_ONCE = 64
_MOST_VISITORS = 256
_PATIENCE_SECONDS = 5.0
_BIRTH_SECONDS = 1.0  # the supervisor tells of a worker's birth well within that
_CLOSE_SECONDS = 1.0  # as soon has it let go of a socket that we have closed
_LOOK_SECONDS = 0.02
_PAUSE_SECONDS = 0.1
_ROOM = socket.CMSG_SPACE(4 * 253)  # all that a packet may carry (SCM_MAX_FD)


class Visitor:
    """A connection, until it is answered or gives up."""

    def __init__(self, sock: socket.socket, peer: Peer, now: float) -> None:
        self.socket = sock
        self.peer = peer
        self.since = now
        self.timer: Timer | None = None


class SocketManager:
    """`name` is what workers find in SENGU_SOCKETS."""

    def __init__(
        self,
        loop: Loop,
        keeper: Keeper,
        sockets: Sockets,
        askers: Askers,
        tell: Callable[[str], None],
    ) -> None:
        """Raises OSError."""
        self._loop = loop
        self._keeper = keeper
        self._askers = askers
        self._tell = tell
        self._visitors: set[Visitor] = set()
        self._closed_at = -math.inf
        held = keeper.take(_NAME)
        if held is None:
            self.name = f"@sengu/{os.getpid()}/sockets/{os.urandom(8).hex()}"
            self._listener = _listen(self.name)
            keeper.hold(_NAME, self._listener.fileno(), self.name)
        else:
            self.name = held.note
            self._listener = socket.socket(fileno=held.fd)
        self._listener.setblocking(False)
        self.managed = ManagedSockets(keeper, sockets)

    def start(self) -> None:
        """Hear those who ask from now on."""
        if self._listener.fileno() >= 0:  # else the service has ended meanwhile
            self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._welcome)

    def follow(self, observed: Observed) -> None:
        """Close what no generation that is left has asked for."""
        if len(self.managed):
            for address in self.managed.close_unused(observed.generations):
                self._closed_at = self._loop.now()
                self._tell(f"closed {address}: the last generation that asked for it is gone")

    def close(self) -> None:
        """The service has ended."""
        self._go()
        self.managed.close()

    def leave(self) -> None:
        """Others go on with what there is."""
        self._go()
        self.managed.leave()

    def _go(self) -> None:
        for visitor in list(self._visitors):
            self._dismiss(visitor)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()

    def _welcome(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._visitors) >= _MOST_VISITORS:
                self._loop.unwatch(self._listener.fileno())  # until one of them has gone
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is free
                self._pause()
                return
            self._receive(sock)

    def _pause(self) -> None:
        self._loop.unwatch(self._listener.fileno())
        self._loop.call_at(self._loop.now() + _PAUSE_SECONDS, self.start)

    def _receive(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            peer = peer_of(sock)
        except OSError:  # nobody is told more of it than that it is closed
            sock.close()
            return
        visitor = Visitor(sock, peer, self._loop.now())
        self._visitors.add(visitor)
        if not self._askers.is_ours(peer.pid):
            problem = (
                f"process {peer.pid} is no worker's: sockets are for the workers of this instance, "
                "and for what they have started"
            )
            self._refuse(visitor, problem, errno.EPERM)
            return
        self._loop.watch(sock.fileno(), select.EPOLLIN, lambda: self._hear(visitor))
        end = visitor.since + _PATIENCE_SECONDS
        visitor.timer = self._loop.call_at(end, lambda: self._dismiss(visitor))

    def _hear(self, visitor: Visitor) -> None:
        try:
            data = _take(visitor.socket)
        except BlockingIOError:
            return
        except OSError:  # it was killed
            data = b""
        self._loop.unwatch(visitor.socket.fileno())
        if not data:
            self._dismiss(visitor)
            return
        try:
            request = wire.decode_request(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._refuse(visitor, f"not understood: {error}; docs/sockets.md has the protocol")
            return
        self._answer(visitor, request)

    def _answer(self, visitor: Visitor, request: wire.Request) -> None:
        if visitor not in self._visitors:
            return
        generation = self._askers.generation_of(visitor.peer.pid)
        if has_ended(visitor.socket):  # its pid may be another's by now
            self._dismiss(visitor)
        elif generation is not None:
            self._give(visitor, request, generation)
        elif self._loop.now() < visitor.since + _BIRTH_SECONDS:
            self._answer_later(visitor, request)
        else:
            pid = visitor.peer.pid
            self._refuse(visitor, f"process {pid} is of no living worker", errno.EPERM)

    def _answer_later(self, visitor: Visitor, request: wire.Request) -> None:
        again = self._loop.now() + _LOOK_SECONDS
        self._loop.call_at(again, lambda: self._answer(visitor, request))

    def _give(self, visitor: Visitor, request: wire.Request, generation: int) -> None:
        try:
            address = wire.address_of(request)
            managed, is_new = self.managed.give(address, generation, visitor.peer)
        except UsageError as error:
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            is_closing = self._loop.now() < self._closed_at + _CLOSE_SECONDS
            if number == errno.EADDRINUSE and is_closing:  # it may be the one that has it yet
                self._answer_later(visitor, request)
                return
            self._refuse(visitor, str(error), number or errno.EACCES)
            return
        where = managed.listener.address
        if is_new:
            self._tell(f"opened {where}, which generation {generation} has asked for")
        # A server that follows us knows of the socket before anybody has it.
        given = wire.encode(wire.Given(where))
        sock = managed.listener.socket
        self._keeper.then(lambda: self._send(visitor, given, sock))

    def _refuse(self, visitor: Visitor, problem: str, number: int = errno.EINVAL) -> None:
        self._send(visitor, wire.encode(wire.Refused(problem, number)))

    def _send(self, visitor: Visitor, answer: bytes, beside: socket.socket | None = None) -> None:
        """Answer and part. Who gets none asks again: it has gone, or its socket was lost again."""
        if visitor in self._visitors:
            try:
                if beside is None or beside.fileno() >= 0:
                    fds = [] if beside is None else [beside.fileno()]
                    packets.send(visitor.socket, answer, fds)
            except OSError:
                pass
            self._dismiss(visitor)

    def _dismiss(self, visitor: Visitor) -> None:
        self._visitors.discard(visitor)
        if visitor.timer is not None:
            visitor.timer.cancel()
        if visitor.socket.fileno() >= 0:
            self._loop.unwatch(visitor.socket.fileno())
            visitor.socket.close()
        if len(self._visitors) == _MOST_VISITORS - 1:
            self.start()


def _listen(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind("\0" + name[1:])
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _take(sock: socket.socket) -> bytes:
    """One packet; what comes beside it is closed. Raises OSError."""
    data, control, _flags, _name = sock.recvmsg(packets.MAX_BYTES, _ROOM, socket.MSG_CMSG_CLOEXEC)
    passed = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            passed.frombytes(payload[: len(payload) - len(payload) % passed.itemsize])
    for fd in passed:
        close_at_once(fd)
    return data
