"""The relay: serves connections that nobody else can accept any more, by passing their bytes on.

A connection waits in the queue of a socket whose program is gone, and we hold that socket: it is
accepted here, and another is made to those who serve now. They see our address instead of the
client's. It is the last resort, after queues were drained and where the kernel cannot migrate what
is left. Imported by those who hold such sockets.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator

from sengu.posix.loop import Loop

# As connect(2) takes it.
Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes

_BUFFER_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Relay:
    """Both halves of one connection, each with what was read for it and not yet written."""

    def __init__(self, loop: Loop, client: socket.socket, server: socket.socket) -> None:
        self._loop = loop
        self._ends = (client, server)
        self._pending = [b"", b""]  # to the client, to the server
        self._has_ended = [False, False]  # whether that end has said all
        self._was_told = [False, False]  # whether that end knows that the other has
        for end in self._ends:
            end.setblocking(False)
        self._watch()

    def _step(self) -> None:
        try:
            for source in (0, 1):
                self._write(1 - source)
                self._read(source)
                self._write(1 - source)
        except OSError:  # reset by one of them: so is the other
            self._close(reset=True)
            return
        if all(self._was_told):
            self._close(reset=False)
        else:
            self._watch()

    def _read(self, source: int) -> None:
        if self._has_ended[source] or self._pending[1 - source]:
            return
        try:
            data = self._ends[source].recv(_BUFFER_BYTES)
        except BlockingIOError:
            return
        self._pending[1 - source] = data
        self._has_ended[source] = not data

    def _write(self, target: int) -> None:
        if self._pending[target]:
            try:
                sent = self._ends[target].send(self._pending[target])
            except BlockingIOError:
                return
            self._pending[target] = self._pending[target][sent:]
        source = 1 - target
        if self._has_ended[source] and not self._pending[target] and not self._was_told[target]:
            self._ends[target].shutdown(socket.SHUT_WR)
            self._was_told[target] = True

    def _watch(self) -> None:
        for number, end in enumerate(self._ends):
            events = 0
            if not self._has_ended[number] and not self._pending[1 - number]:
                events |= select.EPOLLIN
            if self._pending[number]:
                events |= select.EPOLLOUT
            if events:
                self._loop.watch(end.fileno(), events, self._step)
            else:  # the kernel would tell again and again that it has been closed
                self._loop.unwatch(end.fileno())

    def _close(self, *, reset: bool) -> None:
        for end in self._ends:
            self._loop.unwatch(end.fileno())
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()


def pass_on(
    loop: Loop,
    listener: socket.socket,
    connect: Callable[[], socket.socket],
    *,
    skip: Callable[[int], bool] = lambda port: False,
) -> int:
    """Accept all that waits at `listener`, and relay each to what `connect` gives; how many.

    `connect` returns a socket that is being connected. A client for whom it raises OSError is let
    go, and so is one whose port `skip` knows.
    """
    accepted = []
    for client, port in list(_accept(listener)):  # a connection of ours that comes here has to wait
        if skip(port):
            client.close()
        else:
            accepted.append(client)
    for client in accepted:
        try:
            server = connect()
        except OSError:  # nobody serves at all
            client.close()
        else:
            Relay(loop, client, server)
    return len(accepted)


def _accept(listener: socket.socket) -> Iterator[tuple[socket.socket, int]]:
    """All that wait, each with the port it comes from."""
    listener.setblocking(False)
    while True:
        try:
            client, peer = listener.accept()
        except OSError as error:
            if error.errno == errno.ECONNABORTED:  # that client has given up; others wait
                continue
            return  # EAGAIN: nobody; or no more descriptors: they wait
        yield client, peer[1]


def begin_to_connect(made: socket.socket, address: Address) -> socket.socket:
    """The socket, which is being connected now. Raises OSError; then it is closed."""
    made.setblocking(False)
    error = made.connect_ex(address)
    if error not in {0, errno.EINPROGRESS, errno.EAGAIN}:
        made.close()
        raise OSError(error, os.strerror(error))
    return made
