"""`self.sockets` of a worker under test: opened by the test itself. Imported by `runner`."""

import socket

from sengu.wire import sockets as wire
from sengu.work.sockets import SocketManager


class LocalSockets(SocketManager):
    """As the real one: whoever asks for the same gets the same."""

    def __init__(self) -> None:
        super().__init__("nobody")
        self._opened: dict[wire.Request, socket.socket] = {}

    def close(self) -> None:
        for sock in self._opened.values():
            sock.close()

    def _ask(self, request: wire.Request) -> socket.socket:
        if request not in self._opened:
            self._opened[request] = _open(request)
        return self._opened[request].dup()


def _open(request: wire.Request) -> socket.socket:
    if isinstance(request, wire.Unix):
        return _bind(socket.AF_UNIX, socket.SOCK_STREAM, request.path.replace("@", "\0", 1))
    family = socket.AF_INET6 if ":" in request.host else socket.AF_INET
    kind = socket.SOCK_STREAM if isinstance(request, wire.Tcp) else socket.SOCK_DGRAM
    return _bind(family, kind, (request.host, request.port))


def _bind(family: int, kind: int, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen()
    except BaseException:  # it is open, and nobody will have it
        sock.close()
        raise
    return sock
