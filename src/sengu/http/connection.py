"""One client connection: what has been read of it, and reading and writing that waits.

The loop reads without waiting. `receive` and `send` are for whoever has the connection in hand
while the application runs: they wait for the client, at most as long as it may pause.
"""

import contextlib
import enum
import os
import select
import socket
import struct
from typing import Protocol

from sengu.http.body import PIECE_BYTES, Decoder
from sengu.http.environ import Environ, Manner
from sengu.http.file_wrapper import Span
from sengu.http.head import Refusal
from sengu.http.site import Site
from sengu.posix import clock
from sengu.posix.outgoing import untaken
from sengu.worker.board import Lane

_DONT_WAIT = int(socket.MSG_DONTWAIT)  # an enum is slow to combine
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_SENDFILE_BYTES = 1 << 20
_TELL_SECONDS = 0.25  # while it waits: often enough for any --timeout


class State(enum.Enum):
    """What the loop waits for."""

    PROXY = enum.auto()  # the PROXY header
    HANDSHAKE = enum.auto()  # TLS
    HEAD = enum.auto()  # the end of a head, or a first request
    BODY = enum.auto()  # more of a body
    BUSY = enum.auto()  # nothing: a thread has it
    IDLE = enum.auto()  # the next request
    LINGER = enum.auto()  # the client to close


_FIRST_STATE = State.HEAD


class Transport(Protocol):
    """A plain socket or a TLS one. BlockingIOError: not now. Other OSErrors: never again."""

    def recv(self, size: int, flags: int = 0, /) -> bytes: ...
    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int: ...
    def fileno(self) -> int: ...
    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class ClientGone(ConnectionError):
    """The client does not take its answer: it has closed, or it reads too slowly."""


class Connection:
    """Made by the loop from a descriptor and what has been read of it.

    `deadline` is when the loop gives up waiting; None until its next sweep, which sets it. `head`
    begins with the line of the request in hand, or of the last one. `decoder` is that of its body,
    if it has one. `peer` is address and port of the client, as the environ has them.
    """

    lane: Lane
    peer: tuple[str, str]
    environ: Environ
    taken: bytes
    manner: Manner
    expects: bool
    discarded: int

    __slots__ = (
        "base",
        "buffer",
        "deadline",
        "decoder",
        "discarded",
        "environ",
        "expects",
        "fd",
        "head",
        "is_watched",
        "lane",
        "manner",
        "peer",
        "site",
        "socket",
        "state",
        "taken",
    )

    def __init__(self, site: Site, base: Environ, fd: int, plain: Transport) -> None:
        self.site = site
        self.base = base
        self.fd = fd
        self.socket = plain
        self.state = _FIRST_STATE
        self.deadline: float | None = None
        self.buffer = b""
        self.head = b""
        self.is_watched = False
        self.decoder: Decoder | None = None

    def receive(self) -> bytes:
        """Wait for more of the body. Raises Refusal."""
        if self.expects:
            self.expects = False
            try:
                self.send(_CONTINUE)
            except ClientGone:
                raise Refusal(400, "the client is gone") from None
        while True:
            try:
                data = self.socket.recv(PIECE_BYTES, _DONT_WAIT)
            except BlockingIOError:
                if not self._wait(select.POLLIN):
                    raise Refusal(408, "the body does not come") from None
                continue
            except OSError:
                data = b""
            if not data:
                raise Refusal(400, "the client closed before the body's end")
            self.lane.progress(clock.monotonic())
            return data

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send all of it. Raises ClientGone."""
        try:
            sent = self.socket.send(data, flags | _DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise ClientGone("the client is gone") from None
        if sent != len(data):
            self._send_rest(memoryview(data)[sent:], flags)

    def _send_rest(self, data: memoryview, flags: int) -> None:
        while data:
            self._wait_for_room()
            try:
                data = data[self.socket.send(data, flags | _DONT_WAIT) :]
            except BlockingIOError:
                continue
            except OSError:
                raise ClientGone("the client is gone") from None
            self.lane.progress(clock.monotonic())

    def send_file(self, span: Span) -> int:
        """Send a part of a file; how much of it there was. Raises ClientGone. No TLS."""
        os.set_blocking(self.fd, False)
        sent = 0
        while sent < span.size:
            count = min(span.size - sent, _SENDFILE_BYTES)
            try:
                step = os.sendfile(self.fd, span.fd, span.offset + sent, count)
            except BlockingIOError:
                self._wait_for_room()
                continue
            except OSError:
                raise ClientGone("the client is gone") from None
            if step == 0:  # the file has become shorter
                break
            sent += step
            self.lane.progress(clock.monotonic())
        return sent

    def _wait_for_room(self) -> None:
        if not self._wait(select.POLLOUT):
            raise ClientGone("the client does not read")

    def _wait(self, event: int) -> bool:
        """Whether the client moves within the pause that it may make."""
        poller = select.poll()
        poller.register(self.fd, event)
        patience = self.site.timeouts.body_seconds
        now = clock.monotonic()
        end = now + patience
        left = untaken(self.fd)
        is_ready = False
        while not is_ready:
            if now >= end:
                before, left = left, untaken(self.fd)
                if left >= before:
                    break
                end = now + patience  # it reads, slowly
            is_ready = bool(poller.poll(min(end - now, _TELL_SECONDS) * 1000))
            now = clock.monotonic()
            # It is the client that takes its time: the application is not stuck.
            self.lane.progress(now)
        return is_ready

    def speak_at_once(self) -> None:
        """Send small pieces as they come, not when the client has taken the ones before."""
        with contextlib.suppress(OSError):  # a UNIX socket, which does that anyway
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        """Close so that the client can not take what it has for a whole answer."""
        with contextlib.suppress(OSError):  # UNIX sockets know no other way to close
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()
