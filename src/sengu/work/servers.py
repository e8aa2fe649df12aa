"""Servers of the standard library on sockets that are there already. Imported by users.

Those of asyncio need nothing: `asyncio.start_server(handle, sock=sock)`.
"""

import socket
import socketserver
from collections.abc import Callable
from typing import Any


def server_from(
    sock: socket.socket,
    handler: Callable[[Any, Any, Any], socketserver.BaseRequestHandler],
    server_class: type[socketserver.TCPServer] | None = None,
) -> socketserver.TCPServer:
    """A server of `server_class` that serves `sock`, which it owns from then on.

    Without a class: socketserver's for TCP, UDP or UNIX streams, which handles one request after
    the other; ThreadingTCPServer, HTTPServer and others of theirs do as well.
    """
    if server_class is None:
        server_class = _class_for(sock)
    address: Any = sock.getsockname()
    server = server_class(address, handler, bind_and_activate=False)
    server.socket.close()
    # Others accept from it as well, so who waits for a connection must not rely on there being one.
    sock.setblocking(False)
    server.socket = sock
    if sock.family != socket.AF_UNIX:
        vars(server).update(server_name=address[0], server_port=address[1])  # as HTTPServer has it
    return server


def _class_for(sock: socket.socket) -> type[socketserver.TCPServer]:
    if sock.family == socket.AF_UNIX:
        return socketserver.UnixStreamServer
    return socketserver.UDPServer if sock.type == socket.SOCK_DGRAM else socketserver.TCPServer
