"""The PROXY header before a connection's first byte, read so that not one byte more is taken.

TLS may follow it, and wants to read all of its own. Used by `acceptor`.
"""

import asyncio
import contextlib
import errno
import socket

from sengu.http.proxy import ProxyHeader, parse_header

_MOST_BYTES = 1 << 13
_LOOK_AGAIN_SECONDS = 0.01


async def read_header(connection: socket.socket, timeout_seconds: float) -> ProxyHeader:
    """Raises OSError when it does not come in time, ValueError when something else does."""
    async with asyncio.timeout(timeout_seconds):
        await _readable(connection)
        while (header := _look(connection)) is None:
            # Balancers send it in one piece. What has been seen only stays readable, so there is
            # nothing to wait for but time.
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    connection.recv(header.consumed)
    return header


def _look(connection: socket.socket) -> ProxyHeader | None:
    ahead = connection.recv(_MOST_BYTES, socket.MSG_PEEK)
    if not ahead:
        raise ConnectionResetError(errno.ECONNRESET, "closed before the PROXY header")
    return parse_header(ahead)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), _resolve, future)
    try:
        await future
    finally:
        loop.remove_reader(connection.fileno())


def _resolve(future: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # readable once more before we came to it
        future.set_result(None)
