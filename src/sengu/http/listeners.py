"""What the engines ask of the listeners that all workers share. Imported by both engines."""

import socket
from collections.abc import Iterable

# The kernel makes a whole second of anything shorter. Who says nothing for so long, such as a
# browser that connects ahead, is handed over all the same.
_PATIENCE_SECONDS = 1


def await_first_bytes(listeners: Iterable[socket.socket]) -> None:
    """Hand connections over when their clients have spoken (TCP_DEFER_ACCEPT, tcp(7)): in HTTP, TLS
    and the PROXY protocol it is the client that begins. Whoever accepts one can read at once, and
    need not look after a silent one: a fifth of what a connection costs."""
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _PATIENCE_SECONDS)
