"""The worker's loop: accepts, reads, has requests answered, and ends what takes too long.

One thread, one epoll, level-triggered; it never waits for a client. With one thread it answers
itself, with more a pool does. How a worker drains is in `drain`. Made by `engine`.
"""

import math
import select
import socket
import traceback
from collections.abc import Callable

from sengu.http.acceptor import Acceptor, Shortage, read_proxy_header
from sengu.http.access_log import Record
from sengu.http.connection import Connection, State
from sengu.http.environ import Environ
from sengu.http.exchange import Exchange, Next
from sengu.http.head import Refusal
from sengu.http.intake import Intake
from sengu.http.pool import Pool
from sengu.http.rendering import prefixes, refusal_answer
from sengu.http.site import Site
from sengu.http.tls import TlsSocket
from sengu.posix import clock
from sengu.worker.runtime import Runtime

_READ_BYTES = 1 << 14
_DISCARD_BYTES = 1 << 16
_EVENTS = 64
_ACCEPTS = 1  # at a time: the other workers want some, too
_SWEEP_SECONDS = 1.0
_DRAIN_SWEEP_SECONDS = 0.1
_LINGER_SECONDS = 5.0
_MAX_LINGER_BYTES = 1 << 26

_DONT_WAIT = int(socket.MSG_DONTWAIT)  # an enum is slow to combine
_HEAD, _BODY, _BUSY, _IDLE, _LINGER = (
    State.HEAD,
    State.BODY,
    State.BUSY,
    State.IDLE,
    State.LINGER,
)
_GREETING = (State.PROXY, State.HANDSHAKE)
_STAY, _CLOSE = Next.STAY, Next.CLOSE


class Loop:
    """Owns the worker's connections. `connections` are those that it waits for, by descriptor."""

    def __init__(self, site: Site, runtime: Runtime) -> None:
        self.connections: dict[int, Connection] = {}
        self._site = site
        self._runtime = runtime
        self._lane = runtime.board.lanes[0]
        self._epoll = select.epoll()
        self._intake = Intake(site)
        exchanges = [Exchange(site, lane) for lane in runtime.board.lanes]
        self._exchange = exchanges[0]
        self._pool = Pool(exchanges) if site.options.threads > 1 else None
        self.acceptor = Acceptor(self._epoll, runtime.listeners, site)
        self._max_connections = site.options.limits.connections
        self._end_at = math.inf
        self._sweep_at = math.inf
        # Beside connections and listeners.
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back when `fd` is readable."""
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def run(self, after_round: Callable[[float], bool]) -> None:
        """Serve until `after_round(now)`, called before each wait, says that it is enough."""
        if self._pool is not None:
            self.watch(self._pool.wake_fd, self._take_back)
        runtime, connections = self._runtime, self.connections
        poll, attend, monotonic = self._epoll.poll, self._attend, clock.monotonic
        timeout = -1.0
        while True:
            events = poll(timeout, _EVENTS)
            if events and runtime.dozing:
                runtime.rouse()
            for fd, _ in events:
                connection = connections.get(fd)
                if connection is not None:
                    try:
                        attend(connection)
                    except Exception:  # a mistake in serving one client must not end the others
                        self._give_up(connection)
                elif fd in self.acceptor:
                    self.accept(fd)
                elif fd in self._watched:
                    self._watched[fd]()
            now = monotonic()
            if now >= self._sweep_at:
                self._sweep(now)
            elif events and self._sweep_at > now + _SWEEP_SECONDS:
                self._sweep_at = now + _SWEEP_SECONDS
            if after_round(now):
                return
            timeout = max(0.0, self._sweep_at - now) if self._sweep_at != math.inf else -1.0

    def accept(self, fd: int, most: int = _ACCEPTS) -> bool:
        """Take up to `most` new connections of a listener; whether there may be more."""
        for _ in range(most):
            if len(self.connections) >= self._max_connections:
                self.acceptor.close()
                return False
            try:
                connection = self.acceptor.accept(fd)
            except Shortage:  # the next sweep tries again
                self.acceptor.close()
                self._sweep_at = min(self._sweep_at, clock.monotonic() + _SWEEP_SECONDS)
                return False
            if connection is None:
                return False
            try:
                self._attend(connection)
            except Exception:  # as above
                self._give_up(connection)
        return True

    def adopt(self, connection: Connection) -> None:
        """Serve a connection that somebody else has accepted, and perhaps read from."""
        if connection.buffer:
            data, connection.buffer = connection.buffer, b""
            self._serve(connection, data)
        else:
            self._attend(connection)

    def idle(self) -> list[Connection]:
        """The connections that wait for a next request, of which nothing has come."""
        return [one for one in self.connections.values() if one.state is _IDLE]

    def end_by(self, end_at: float) -> None:
        """Look at the deadlines at `end_at` in any case."""
        self._end_at = end_at
        self._sweep_at = min(self._sweep_at, end_at)

    def expire_silent(self, deadline: float) -> None:
        """End those at `deadline` from whom not a byte of a request has come until then."""
        for connection in self.connections.values():
            is_new = connection.state is _HEAD and not connection.buffer
            if is_new or connection.state is _IDLE:
                connection.deadline = deadline
        self._sweep_at = min(self._sweep_at, deadline)

    def _attend(self, connection: Connection) -> None:
        """It is readable, or new."""
        state = connection.state
        if state is not _IDLE and state is not _HEAD and state is not _BODY:
            if state is _LINGER:
                self._discard(connection)
            else:
                self._greet(connection)
            return
        try:
            data = connection.socket.recv(_READ_BYTES, _DONT_WAIT)
        except BlockingIOError:
            if not connection.is_watched:
                self._watch(connection)
            return
        except OSError:  # reset by the client
            data = b""
        if data:
            self._serve(connection, data)
        else:
            self._drop(connection)

    def _serve(self, connection: Connection, data: bytes) -> None:
        """Answer all requests that are here with `data`."""
        admit = self._intake.admit
        try:
            if connection.state is _BODY:
                environ = self._intake.take_body(connection, data)
            else:
                environ = admit(connection, connection.buffer + data)
            while environ is not None:
                if self._pool is not None:
                    self._hand_over(self._pool, connection, environ)
                    return
                step = self._exchange.answer(connection, environ)
                if step is not _STAY:
                    if step is _CLOSE and not connection.is_watched:
                        connection.socket.close()
                    else:
                        self._leave(connection, step)
                    return
                connection.state = _IDLE
                connection.deadline = None
                if not connection.buffer:
                    break
                environ = admit(connection, connection.buffer)
        except Refusal as refusal:
            self._refuse(connection, refusal, data)
            return
        if not connection.is_watched:
            self._watch(connection)

    def _hand_over(self, pool: Pool, connection: Connection, environ: Environ) -> None:
        connection.state = _BUSY
        if connection.is_watched:
            self._epoll.unregister(connection.fd)
            connection.is_watched = False
        self.connections[connection.fd] = connection
        pool.put(connection, environ)

    def _take_back(self) -> None:
        """Connections have come back from the pool."""
        assert self._pool is not None
        for connection, step in self._pool.returned():
            if step is not _STAY:
                self._leave(connection, step)
                continue
            connection.state = _IDLE
            connection.deadline = None
            if connection.buffer:
                data, connection.buffer = connection.buffer, b""
                self._serve(connection, data)
            else:
                self._watch(connection)

    def _greet(self, connection: Connection) -> None:
        """What comes before HTTP: the PROXY header, the TLS handshake."""
        if not connection.is_watched:
            self._watch(connection)
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
            self._drop(connection)
            return
        connection.state = _HEAD
        self._attend(connection)

    def _watch(self, connection: Connection) -> None:
        """Hear of what comes next."""
        connection.is_watched = True
        self.connections[connection.fd] = connection
        self._lane.connections = len(self.connections)
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _forget(self, connection: Connection) -> None:
        if connection.is_watched:  # before it is closed: a child of the application may hold it
            self._epoll.unregister(connection.fd)
            connection.is_watched = False
        if self.connections.pop(connection.fd, None) is not None:
            self._lane.connections = len(self.connections)
            if len(self.connections) == self._max_connections - 1 and not self._runtime.stopping:
                self.acceptor.open()

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.socket.close()

    def _give_up(self, connection: Connection) -> None:
        traceback.print_exc()
        self._drop(connection)

    def _leave(self, connection: Connection, step: Next) -> None:
        """End a connection after its last answer."""
        if step is Next.LINGER:
            self.linger(connection)
        elif step is Next.RESET:
            self._forget(connection)
            connection.reset()
        else:
            self._drop(connection)

    def linger(self, connection: Connection) -> None:
        """Say that nothing more comes, and read until the client closes: closing with bytes
        unread would be a reset, which can destroy the answer on its way (RFC 9112 §9.6)."""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            self._drop(connection)
            return
        connection.state = _LINGER
        connection.deadline = None
        connection.discarded = 0
        if not connection.is_watched:
            self._watch(connection)

    def _discard(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(_DISCARD_BYTES, _DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:  # reset by the client
            data = b""
        connection.discarded += len(data)
        if not data or connection.discarded > _MAX_LINGER_BYTES:
            self._drop(connection)

    def _refuse(self, connection: Connection, refusal: Refusal, data: bytes) -> None:
        """Answer what no application will see, and linger."""
        now = clock.monotonic()
        if now >= prefixes.until:
            prefixes.refresh(now, clock.wall())
        answer = refusal_answer(refusal.status, refusal.reason)
        try:
            connection.socket.send(answer, _DONT_WAIT)
        except OSError:  # it does not listen
            self._drop(connection)
            return
        if self._site.log is not None:
            line = data.partition(b"\r\n")[0][: self._site.head_limits.line_bytes]
            self._site.log.add(
                Record(
                    connection.peer[0],
                    clock.wall(),
                    line.decode("latin-1"),
                    refusal.status,
                    len(answer) - answer.index(b"\r\n\r\n") - 4,
                    0.0,
                )
            )
        self.linger(connection)

    def _sweep(self, now: float) -> None:
        """Give deadlines to those that have none, and act on those that have passed."""
        self._lane.count()
        if not self._runtime.stopping and len(self.connections) < self._max_connections:
            self.acceptor.open()  # after a shortage
        earliest = math.inf
        for connection in list(self.connections.values()):
            if connection.state is _BUSY:
                continue
            if connection.deadline is None:
                connection.deadline = now + self._patience(connection)
            elif connection.deadline <= now:
                self._expire(connection)
                continue
            earliest = min(earliest, connection.deadline)
        period = _DRAIN_SWEEP_SECONDS if self._runtime.stopping else _SWEEP_SECONDS
        self._sweep_at = max(min(earliest, self._end_at), now + period)

    def _patience(self, connection: Connection) -> float:
        timeouts = self._site.timeouts
        match connection.state:
            case State.IDLE:
                return timeouts.keep_alive_seconds
            case State.BODY:
                return timeouts.body_seconds
            case State.LINGER:
                return _LINGER_SECONDS
            case _:
                return timeouts.header_seconds

    def _expire(self, connection: Connection) -> None:
        has_begun = connection.buffer or connection.state is _BODY
        if connection.state in (_HEAD, _BODY) and has_begun:
            self._refuse(connection, Refusal(408, "the request does not come"), connection.buffer)
        else:
            self._drop(connection)

    def close(self) -> None:
        """Let go of everything."""
        if self._pool is not None:
            self._pool.close(0.0)
        for connection in list(self.connections.values()):
            if connection.state is not _BUSY:
                self._drop(connection)
        self._epoll.close()
