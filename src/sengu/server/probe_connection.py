"""One connection of a readiness probe, from connect to a close that disturbs nobody.

It knows the socket and the bytes, and its phase says how far it is. Whose worker took it and
what that means is decided in `probe`, the only module that imports this one. Never blocks: it is
looked at when the prober's timer says so, and read when the loop finds it readable.
"""

import contextlib
import enum
import errno
import os
import select
import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sengu.posix.sockdiag import accepted_inode
from sengu.server.probe_http import final_status

Address = str | bytes | tuple[str, int] | tuple[str, int, int, int]
HELD_SECONDS = 0.2  # TCP_DELACK_MAX
ANSWER_SECONDS = 5.0  # a first request may have to warm the application up
LINGER_SECONDS = 2.0  # for the other side to close first
_READ_BYTES = 65536
_HEAD_BYTES = 65536  # more than any server sends before the final status line


class Target(NamedTuple):
    """Address family and what connect() takes.

    Where each worker has a socket of its own, `lead` is called with the port that a connection will
    come from, so that it gets to the right one; with 0 when that is not needed any more.
    """

    family: int
    address: Address
    lead: Callable[[int], None] | None = None

    def stop_leading(self) -> None:
        if self.lead is not None:
            with contextlib.suppress(OSError):  # nor could it begin
                self.lead(0)


class Timer(Protocol):
    """What `Watch.call_at` returns."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """What a probe needs of the server's loop. Times are seconds on the loop's own clock."""

    def now(self) -> float: ...
    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> Timer: ...


class Phase(enum.Enum):
    """How far a connection is. Only ever goes down this list."""

    WAITING = enum.auto()  # connecting, or in the listener's accept queue
    ASKED = enum.auto()  # accepted and the request is sent
    LEAVING = enum.auto()  # the rest is read and thrown away until the other side closes
    CLOSED = enum.auto()


class ProbeConnection:
    """A non-blocking client connection. `on_answer` is called once if it was asked something."""

    __slots__ = (
        "_connected",
        "_head",
        "_loop",
        "_on_answer",
        "_socket",
        "_target",
        "deadline",
        "look_from",
        "phase",
        "problem",
        "status",
    )

    def __init__(self, loop: Watch, target: Target) -> None:
        """Open the socket; raises OSError when there is no descriptor left."""
        self._loop = loop
        self._target = target
        self._socket = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._on_answer: Callable[[ProbeConnection], None] | None = None
        self._connected = False
        self._head = b""
        self.phase = Phase.WAITING
        self.look_from = loop.now()  # when it can have been accepted at the earliest
        self.deadline: float | None = None  # when expire() has something to do
        self.status: int | None = None  # of the final HTTP answer
        self.problem = ""  # why it is not connected, or has no status

    def connect(self, *, held: bool = False) -> None:
        """Begin to connect. If that fails at once it is closed and `problem` says why.

        With `held` our last segment of the TCP handshake waits for the kernel's timer, as if
        data were to follow at once (TCP_QUICKACK in tcp(7)). So all connections of a burst get
        into the accept queue in one run of that timer, and not one by one as we make them.
        """
        if held and self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            self.look_from += HELD_SECONDS
        self._be_led()
        code = self._socket.connect_ex(self._target.address)
        if code in {0, errno.EINPROGRESS}:
            return
        # connect(2): on UNIX sockets EAGAIN does not mean "wait".
        full = code == errno.EAGAIN
        self.problem = "the accept queue is full" if full else os.strerror(code).lower()
        self.close()

    def _be_led(self) -> None:
        if self._target.lead is None:
            return
        with contextlib.suppress(OSError):  # no port left, or no steering: chance may lead it
            self._socket.bind(("", 0))
            self._target.lead(self._socket.getsockname()[1])

    def accepted_inode(self) -> int:
        """The inode of the socket that a process got by accepting this, 0 while none has.

        Raises OSError when the connection has failed or was closed.
        """
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if not self._connected:
            try:
                self._socket.getpeername()
            except OSError as error:
                if error.errno == errno.ENOTCONN:  # the handshake is not done
                    return 0
                raise
            self._connected = True
        return accepted_inode(self._socket)

    def ask(self, request: bytes, on_answer: "Callable[[ProbeConnection], None]") -> None:
        """Send an HTTP request. Later `on_answer(self)`: look at `status`, else at `problem`."""
        self.phase = Phase.ASKED
        self.deadline = self._loop.now() + ANSWER_SECONDS
        self._on_answer = on_answer
        self._loop.watch(self._socket.fileno(), select.EPOLLIN, self._read)
        try:
            sent = self._socket.send(request, socket.MSG_NOSIGNAL)
        except OSError as error:  # it has closed already: the answer is that there is none
            self._answered(problem=f"{error.strerror}".lower())
            return
        if sent != len(request):  # never with a fresh buffer and a request of a few lines
            self._answered(problem=f"the request of {len(request)} bytes is too long")

    def leave(self) -> None:
        """Close politely: say that nothing more will come, read until the other side closes.

        A close with unread bytes, or before the other side has written its last, would be a
        reset, and count as an error in a worker that did nothing wrong.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # not connected yet, or not any more: nobody is there to be polite to
            self.close()
            return
        self._linger()

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if self.deadline is None or now < self.deadline:
            return
        if self.phase is Phase.ASKED:
            self._answered(problem=f"no HTTP answer within {ANSWER_SECONDS:g} s")
            return
        self.close()

    def close(self) -> None:
        """Close now. What has already arrived is read, so that even this is rarely a reset."""
        if self.phase is Phase.CLOSED:
            return
        self._unwatch()
        self.phase = Phase.CLOSED
        self.deadline = None
        with contextlib.suppress(OSError):  # nothing there, or not connected: nothing to read
            self._socket.recv(_READ_BYTES)
        self._socket.close()

    def _linger(self) -> None:
        if self.phase is not Phase.ASKED:
            self._loop.watch(self._socket.fileno(), select.EPOLLIN, self._read)
        self.phase = Phase.LEAVING
        self.deadline = self._loop.now() + LINGER_SECONDS

    def _unwatch(self) -> None:
        if self.phase in {Phase.ASKED, Phase.LEAVING}:
            self._loop.unwatch(self._socket.fileno())

    def _read(self) -> None:
        """The loop found it readable: an answer, its end, or an error."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):  # woken for nothing
            return
        except OSError as error:
            self._ended(f"{error.strerror}".lower())
            return
        if not data:
            self._ended("closed without an answer")
        elif self.phase is Phase.ASKED:
            self._parse(data)

    def _ended(self, problem: str) -> None:
        if self.phase is Phase.ASKED:
            self._answered(problem)
        self.close()

    def _parse(self, data: bytes) -> None:
        self._head += data
        try:
            self.status = final_status(self._head)
        except ValueError as error:
            self._answered(str(error))
            return
        if self.status is not None:
            self._answered()
        elif len(self._head) > _HEAD_BYTES:
            self._answered(f"no final HTTP status within {_HEAD_BYTES} bytes")

    def _answered(self, problem: str = "") -> None:
        """Linger without a half-close: some servers take that as a client who has gone away,
        and "Connection: close" makes them end it anyway."""
        self.problem = problem
        self._head = b""
        self._linger()
        if self._on_answer is not None:
            self._on_answer(self)
