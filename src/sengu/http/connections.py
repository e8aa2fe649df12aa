"""The open connections of a worker: heard of, given up on, and ended.

Each that the loop waits for has a deadline, which depends on what it waits for. One coarse sweep
looks at all of them, so that a request costs no timer. Owned by `loop`.
"""

import contextlib
import math
import select
import socket
from collections.abc import Callable

from sengu.http.access_log import Record
from sengu.http.connection import Connection, State
from sengu.http.exchange import Next
from sengu.http.head import Refusal
from sengu.http.rendering import prefixes, refusal_answer
from sengu.http.site import Site
from sengu.posix import clock
from sengu.worker.board import Lane
from sengu.worker.runtime import Stopping

_DISCARD_BYTES = 1 << 16
_LINGER_SECONDS = 5.0
# Who has said nothing for so long when the service ends is not about to.
QUIET_SECONDS = 0.5
_MAX_LINGER_BYTES = 1 << 26

_DONT_WAIT = int(socket.MSG_DONTWAIT)  # an enum is slow to combine


class Connections:
    """`by_fd` are those that are waited for, or in a thread's hands. `has_room` is called when
    there may be one more than before."""

    def __init__(
        self, epoll: select.epoll, site: Site, lane: Lane, has_room: Callable[[], None]
    ) -> None:
        self.by_fd: dict[int, Connection] = {}
        self._epoll = epoll
        self._site = site
        self._lane = lane
        self._has_room = has_room
        self._most = site.options.limits.connections

    @property
    def are_full(self) -> bool:
        return len(self.by_fd) >= self._most

    def idle(self) -> list[Connection]:
        """Those that wait for a next request, of which nothing has come."""
        return [one for one in self.by_fd.values() if one.state is State.IDLE]

    def watch(self, connection: Connection) -> None:
        """Hear of what comes next."""
        connection.is_watched = True
        self.by_fd[connection.fd] = connection
        self._lane.connections = len(self.by_fd)
        self._epoll.register(connection.fd, select.EPOLLIN)

    def lend(self, connection: Connection) -> None:
        """Do not hear of it until it is watched again: a thread has it."""
        connection.state = State.BUSY
        self._unwatch(connection)
        self.by_fd[connection.fd] = connection

    def _unwatch(self, connection: Connection) -> None:
        if connection.is_watched:  # before it is closed: a child of the application may hold it
            connection.is_watched = False
            with contextlib.suppress(OSError):  # TLS took the descriptor, failed, and closed it
                self._epoll.unregister(connection.fd)

    def forget(self, connection: Connection) -> None:
        """It is somebody else's now, or nobody's."""
        self._unwatch(connection)
        if self.by_fd.pop(connection.fd, None) is not None:
            self._lane.connections = len(self.by_fd)
            if not self.by_fd:  # no sweep may come any more to tell
                self._lane.count()
            if len(self.by_fd) == self._most - 1:
                self._has_room()

    def drop(self, connection: Connection) -> None:
        self.forget(connection)
        connection.socket.close()

    def leave(self, connection: Connection, step: Next) -> None:
        """End a connection after its last answer."""
        if step is Next.LINGER:
            self.linger(connection)
        elif step is Next.RESET:
            self.forget(connection)
            connection.reset()
        else:
            self.drop(connection)

    def linger(self, connection: Connection) -> None:
        """Say that nothing more comes, and read until the client closes: closing with bytes
        unread would be a reset, which can destroy the answer on its way (RFC 9112 §9.6)."""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            self.drop(connection)
            return
        connection.state = State.LINGER
        connection.deadline = None
        connection.discarded = 0
        if not connection.is_watched:
            self.watch(connection)

    def discard(self, connection: Connection) -> None:
        """Read what nobody will, for one that lingers."""
        try:
            data = connection.socket.recv(_DISCARD_BYTES, _DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:  # reset by the client
            data = b""
        connection.discarded += len(data)
        if not data or connection.discarded > _MAX_LINGER_BYTES:
            self.drop(connection)

    def refuse(self, connection: Connection, refusal: Refusal, data: bytes) -> None:
        """Answer what no application will see, and linger. `data` is what began with it."""
        now, wall = clock.monotonic(), clock.wall()
        if now >= prefixes.until:
            prefixes.refresh(now, wall)
        answer = refusal_answer(refusal.status, refusal.reason)
        try:
            connection.socket.send(answer, _DONT_WAIT)
        except OSError:  # it does not listen
            self.drop(connection)
            return
        if self._site.log is not None:
            line = data.partition(b"\r\n")[0][: self._site.head_limits.line_bytes]
            self._site.log.add(
                Record(
                    client=connection.peer[0],
                    at=wall,
                    request_line=line.decode("latin-1"),
                    status=refusal.status,
                    body_bytes=len(answer) - answer.index(b"\r\n\r\n") - 4,
                    seconds=0.0,
                )
            )
        self.linger(connection)

    def sweep(self, now: float) -> float:
        """Give deadlines to those that have none, act on those that have passed; the next one."""
        earliest = math.inf
        for connection in list(self.by_fd.values()):
            if connection.state is State.BUSY:
                continue
            if connection.deadline is None:
                connection.deadline = now + self._patience(connection)
            elif connection.deadline <= now:
                self._expire(connection)
                continue
            earliest = min(earliest, connection.deadline)
        self._lane.count()
        return earliest

    def expire_silent(self, deadline: float) -> None:
        """End those at `deadline` from whom not a byte of a request has come until then."""
        for connection in self.by_fd.values():
            is_new = connection.state is State.HEAD and not connection.buffer
            if is_new or connection.state is State.IDLE:
                connection.deadline = deadline

    def _patience(self, connection: Connection) -> float:
        timeouts = self._site.timeouts
        match connection.state:
            case State.IDLE if self._site.runtime.stopping is Stopping.STOP:
                return QUIET_SECONDS  # a thread had it when the others were given so long
            case State.IDLE:
                return timeouts.keep_alive_seconds
            case State.BODY:
                return timeouts.body_seconds
            case State.LINGER:
                return _LINGER_SECONDS
            case _:
                return timeouts.header_seconds

    def _expire(self, connection: Connection) -> None:
        is_in_head = connection.state is State.HEAD and connection.buffer
        if is_in_head or connection.state is State.BODY:
            begun = connection.buffer or connection.head
            self.refuse(connection, Refusal(408, "the request does not come"), begun)
        else:
            self.drop(connection)

    def close(self) -> None:
        """Let go of all but those that threads have."""
        for connection in list(self.by_fd.values()):
            if connection.state is not State.BUSY:
                self.drop(connection)
