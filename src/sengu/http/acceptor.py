"""The listeners of a worker: accepts, and makes connections of what comes.

They are shared with other workers and owned by the server, so nothing about them is changed.
Made by `loop`.
"""

import errno
import select
import socket
from collections.abc import Sequence

from sengu.http.connection import Connection, State
from sengu.http.proxy import Peer, parse_header
from sengu.http.site import Site
from sengu.http.tls import TlsSocket

# The machine's trouble, not the client's: wait for better times.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PEEK_BYTES = 4096
_NOBODY = Peer()


class Shortage(Exception):
    """No connection can be accepted now; one may be waiting."""


class Acceptor:
    """`is_open` is that the loop hears of new connections."""

    def __init__(self, epoll: select.epoll, listeners: Sequence[socket.socket], site: Site) -> None:
        self._epoll = epoll
        self._site = site
        self._listeners = {
            listener.fileno(): (listener, site.base_environ(listener)) for listener in listeners
        }
        self._first_state = State.HANDSHAKE if site.tls is not None else State.HEAD
        self.is_open = False

    def __contains__(self, fd: int) -> bool:
        return fd in self._listeners

    def fds(self) -> list[int]:
        return list(self._listeners)

    def open(self) -> None:
        """Hear of new connections; one worker of all hears of each."""
        if not self.is_open:
            self.is_open = True
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            for fd in self._listeners:
                self._epoll.unregister(fd)

    def accept(self, fd: int) -> Connection | None:
        """The next connection of listener `fd`, None when there is none. Raises Shortage."""
        listener, base = self._listeners[fd]
        try:
            # accept() would make a socket that looks up what is known here
            new, address = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise Shortage from error
            return None  # it has gone before we came: ECONNABORTED and the like
        plain = socket.SocketType(listener.family, listener.type, listener.proto, new)
        connection = Connection(self._site, base, new, plain)
        if listener.family != socket.AF_UNIX:
            connection.peer = Peer(address[0], str(address[1]))
        else:
            connection.peer = _NOBODY
        if self._site.takes_proxy_header and self._is_proxy(connection):
            connection.state = State.PROXY
        elif self._site.tls is not None:
            self.begin_tls(connection)
        return connection

    def _is_proxy(self, connection: Connection) -> bool:
        trust = self._site.trust
        return trust is not None and trust.trusts(connection.peer.address)

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
