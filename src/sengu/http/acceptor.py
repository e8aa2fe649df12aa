"""The listeners of a worker: accepts, and makes connections of what comes.

They are shared with other workers and owned by the server, so nothing about them is changed.
Made by `loop`.
"""

import errno
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sengu.http.connection import Connection, State
from sengu.http.environ import Environ
from sengu.http.proxy import Peer, parse_header
from sengu.http.site import Site
from sengu.http.tls import TlsSocket

# The machine's trouble, not the client's: wait for better times.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PEEK_BYTES = 4096
_NOBODY = Peer()


class Door(NamedTuple):
    """A listener, and what is not to be asked again for each connection: to make a socket of it,
    and an environ. `has_names` is false for UNIX sockets, whose clients have no addresses."""

    accept: Callable[[], tuple[int, Any]]
    family: int
    type: int
    protocol: int
    has_names: bool
    base: Environ


def _door(listener: socket.socket, site: Site) -> Door:
    return Door(
        # accept() would make a socket that asks what is known here
        listener._accept,  # type: ignore[attr-defined]
        int(listener.family),
        int(listener.type),
        listener.proto,
        listener.family != socket.AF_UNIX,
        site.base_environ(listener),
    )


class Shortage(Exception):
    """No connection can be accepted now; one may be waiting."""


class Acceptor:
    """`is_open` is that the loop hears of new connections. `doors` are by descriptor."""

    def __init__(self, epoll: select.epoll, listeners: Sequence[socket.socket], site: Site) -> None:
        self._epoll = epoll
        self._site = site
        self.doors = {listener.fileno(): _door(listener, site) for listener in listeners}
        self.is_open = False
        self._is_plain = site.tls is None and not site.takes_proxy_header

    def open(self) -> None:
        """Hear of new connections; one worker of all hears of each."""
        if not self.is_open:
            self.is_open = True
            for fd in self.doors:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            for fd in self.doors:
                self._epoll.unregister(fd)

    def accept(self, door: Door) -> Connection | None:
        """A new connection; None when it has gone again. Raises BlockingIOError, Shortage."""
        try:
            new, address = door.accept()
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise Shortage from error
            return None  # ECONNABORTED, or an error of the network that accept(2) passes on
        plain = socket.SocketType(door.family, door.type, door.protocol, new)
        connection = Connection(self._site, door.base, new, plain)
        connection.peer = (address[0], str(address[1])) if door.has_names else _NOBODY
        if not self._is_plain:
            if self._site.takes_proxy_header and self._is_proxy(connection):
                connection.state = State.PROXY
            else:
                try:
                    self.begin_tls(connection)
                except OSError:  # reset while it waited to be accepted
                    plain.close()
                    return None
        return connection

    def _is_proxy(self, connection: Connection) -> bool:
        trust = self._site.trust
        return trust is not None and trust.trusts(connection.peer[0])

    def begin_tls(self, connection: Connection) -> None:
        """Put TLS between the socket and what comes next."""
        if self._site.tls is None:
            connection.state = State.HEAD
            return
        assert isinstance(connection.socket, socket.SocketType)
        connection.socket = TlsSocket(self._site.tls, connection.socket)
        connection.state = State.HANDSHAKE


def read_proxy_header(connection: Connection) -> bool:
    """Take the PROXY header off the socket, and no byte more: TLS may follow. Whether it is whole.

    BlockingIOError: nothing has come. Raises ValueError, OSError.
    """
    ahead = connection.socket.recv(_PEEK_BYTES, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    if not ahead:
        raise ConnectionResetError(errno.ECONNRESET, "closed before the PROXY header")
    header = parse_header(connection.buffer + ahead)
    if header is None:
        connection.buffer += connection.socket.recv(len(ahead), socket.MSG_DONTWAIT)
        return False
    connection.socket.recv(header.consumed - len(connection.buffer), socket.MSG_DONTWAIT)
    connection.buffer = b""
    if header.client is not None:
        connection.peer = header.client
    if header.server is not None:
        names = {"SERVER_NAME": header.server.address, "SERVER_PORT": header.server.port}
        connection.base = connection.base | names
    return True
