"""The worker's loop: accepts, reads, has requests answered.

One thread, one epoll, level-triggered; it never waits for a client. With one thread it answers
itself, with more a pool does. How a worker drains is in `drain`. Made by `engine`.
"""

import math
import select
import socket
import traceback
from collections.abc import Callable

from sengu.http.acceptor import Acceptor, Door, Shortage, read_proxy_header
from sengu.http.connection import Connection, State
from sengu.http.connections import Connections
from sengu.http.exchange import Exchange, Next
from sengu.http.head import Refusal
from sengu.http.intake import Intake
from sengu.http.pool import Pool
from sengu.http.site import Site
from sengu.http.tls import TlsSocket
from sengu.posix import clock
from sengu.worker.runtime import Runtime

_READ_BYTES = 1 << 14
_EVENTS = 64
_SWEEP_SECONDS = 1.0
_DRAIN_SWEEP_SECONDS = 0.1
_NEVER = math.inf

_DONT_WAIT = int(socket.MSG_DONTWAIT)  # an enum is slow to combine
_HEAD, _BODY, _IDLE, _LINGER = State.HEAD, State.BODY, State.IDLE, State.LINGER
_STAY, _CLOSE = Next.STAY, Next.CLOSE


class Loop:
    """`each_round`, if there is one, is called before each wait."""

    def __init__(self, site: Site, runtime: Runtime) -> None:
        self.each_round: Callable[[], None] | None = None
        self._runtime = runtime
        self._epoll = select.epoll()
        self.acceptor = Acceptor(self._epoll, runtime.listeners, site)
        lanes = runtime.board.lanes
        self.connections = Connections(self._epoll, site, lanes[0], self._open)
        self._intake = Intake(site)
        exchanges = [Exchange(site, lane) for lane in lanes]
        self._exchange = exchanges[0]
        self._pool = Pool(exchanges) if site.options.threads > 1 else None
        self._end_at = _NEVER
        self._sweep_at = _NEVER
        # Beside connections and listeners.
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back when `fd` is readable."""
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Serve; return when an end was set and no connection is left, or it has come."""
        if self._pool is not None:
            self.watch(self._pool.wake_fd, self._take_back)
        runtime, connections, doors = self._runtime, self.connections.by_fd, self.acceptor.doors
        poll, attend = self._epoll.poll, self._attend
        timeout: float | None = -1.0
        while timeout is not None:
            # Known before the wait: else that may have used up the kernel's call for a client, who
            # would wait for the next one if he were left to others now.
            is_going = runtime.stopping
            events = poll(timeout, _EVENTS)
            for fd, _ in events:
                connection = connections.get(fd)
                if connection is not None:
                    try:
                        attend(connection)
                    except Exception:  # a mistake in serving one client must not end the others
                        self._give_up(connection)
                elif fd in doors:
                    if not is_going:  # else it is for others, or for `accept_all`
                        self.accept(doors[fd])
                elif fd in self._watched:
                    self._watched[fd]()
            if self.each_round is not None:
                self.each_round()
            is_quiet = not connections and self._sweep_at == _NEVER
            timeout = -1.0 if is_quiet else self._pause(bool(events))

    def _pause(self, has_served: bool) -> float | None:
        """How long to wait; None when it is time to end. Who was served may need a deadline."""
        now = clock.monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        elif has_served and self._sweep_at > now + _SWEEP_SECONDS:
            self._sweep_at = now + _SWEEP_SECONDS
        if self._end_at != _NEVER and (not self.connections.by_fd or now >= self._end_at):
            return None
        return max(0.0, self._sweep_at - now) if self._sweep_at != _NEVER else -1.0

    def _sweep(self, now: float) -> None:
        self._open()  # after a shortage
        earliest = min(self.connections.sweep(now), self._end_at)
        period = _DRAIN_SWEEP_SECONDS if self._end_at != _NEVER else _SWEEP_SECONDS
        self._sweep_at = max(earliest, now + period)

    def _open(self) -> None:
        """Hear of new connections again, if that is what we are here for."""
        if not self._runtime.stopping and not self.connections.are_full:
            self.acceptor.open()

    def end_by(self, end_at: float) -> None:
        """End when no connection is left, or at `end_at`."""
        self.acceptor.close()
        self._end_at = end_at
        self._sweep_at = min(self._sweep_at, end_at)

    def expire_silent(self, deadline: float) -> None:
        """End those at `deadline` from whom not a byte of a request has come until then."""
        self.connections.expire_silent(deadline)
        self._sweep_at = min(self._sweep_at, deadline)

    def accept_all(self) -> None:
        """Take all that wait to be accepted."""
        if self.acceptor.is_open:
            for door in self.acceptor.doors.values():
                while self.accept(door):
                    pass

    def accept(self, door: Door) -> bool:
        """Take one new connection, the others being for others; whether there may be more."""
        if self.connections.are_full:  # in the same round as the last that there was room for
            return False
        try:
            connection = self.acceptor.accept(door)
        except BlockingIOError:
            return False
        except Shortage:
            self.acceptor.close()
            self._sweep_at = min(self._sweep_at, clock.monotonic() + _SWEEP_SECONDS)
            return False
        if connection is not None:
            self.adopt(connection)
            self._close_if_full()
        return True

    def _close_if_full(self) -> None:
        """At once, not when the next one comes: of that no other worker would hear."""
        if self.connections.are_full:
            self.acceptor.close()

    def adopt(self, connection: Connection) -> None:
        """Serve a connection that was accepted, and perhaps read from: by us, or by others."""
        try:
            if connection.buffer:
                data, connection.buffer = connection.buffer, b""
                self._serve(connection, data)
            else:
                self._attend(connection)
        except Exception:  # as in `run`
            self._give_up(connection)

    def _attend(self, connection: Connection) -> None:
        """It is readable, or new."""
        state = connection.state
        if state is not _IDLE and state is not _HEAD and state is not _BODY:
            if state is _LINGER:
                self.connections.discard(connection)
            else:
                self._greet(connection)
            return
        try:
            data = connection.socket.recv(_READ_BYTES, _DONT_WAIT)
        except BlockingIOError:
            if not connection.is_watched:
                self.connections.watch(connection)
            return
        except OSError:  # reset by the client
            data = b""
        if data:
            self._serve(connection, data)
        else:
            self.connections.drop(connection)

    def _serve(self, connection: Connection, data: bytes) -> None:
        """Answer all requests that are here with `data`."""
        admit = self._intake.admit
        begun = data
        try:
            if connection.state is _BODY:
                begun = connection.head
                environ = self._intake.take_body(connection, data)
            else:
                begun = connection.buffer + data
                environ = admit(connection, begun)
            while environ is not None:
                if self._pool is not None:
                    self.connections.lend(connection)
                    self._pool.put(connection, environ)
                    return
                step = self._exchange.answer(connection, environ)
                if step is not _STAY:
                    if step is _CLOSE and not connection.is_watched:
                        connection.socket.close()
                    else:
                        self.connections.leave(connection, step)
                    return
                connection.state = _IDLE
                connection.deadline = None
                if not connection.buffer:
                    break
                begun = connection.buffer
                environ = admit(connection, begun)
        except Refusal as refusal:
            self.connections.refuse(connection, refusal, begun)
            return
        if not connection.is_watched:
            self.connections.watch(connection)

    def _take_back(self) -> None:
        """Connections have come back from the pool."""
        assert self._pool is not None
        for connection, step in self._pool.returned():
            if step is not _STAY:
                self.connections.leave(connection, step)
                continue
            connection.state = _IDLE
            connection.deadline = None
            if connection.buffer:
                self.adopt(connection)
            else:
                self.connections.watch(connection)

    def _greet(self, connection: Connection) -> None:
        """What comes before HTTP: the PROXY header, the TLS handshake."""
        if not connection.is_watched:
            self.connections.watch(connection)
        try:
            if connection.state is State.PROXY:
                if not read_proxy_header(connection):
                    return
                self.acceptor.begin_tls(connection)
            if isinstance(connection.socket, TlsSocket):
                connection.socket.handshake()
        except BlockingIOError:
            return
        except (OSError, ValueError):  # not what it should be: there is nobody to talk to
            self.connections.drop(connection)
            return
        connection.state = _HEAD
        self._attend(connection)

    def _give_up(self, connection: Connection) -> None:
        traceback.print_exc()
        self.connections.drop(connection)

    def close(self) -> None:
        """Let go of everything."""
        if self._pool is not None:
            self._pool.close(0.0)
        self.connections.close()
        self._epoll.close()
