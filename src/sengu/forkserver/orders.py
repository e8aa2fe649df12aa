"""What the server has ordered: batches of births, and what comes between them.

Imported by `forkserver.main`.
"""

import socket
from typing import NamedTuple

from sengu.forkserver.life import Order
from sengu.posix import packets
from sengu.wire import forkserver as wire


class Batch(NamedTuple):
    """Births, and what was asked after them; neither when the server has closed its end."""

    births: list[Order]
    other: wire.Configure | wire.Amend | None = None


def wait_for_orders(sock: socket.socket) -> Batch:
    """All births that were ordered, at least one, up to what is none."""
    births: list[Order] = []
    flags = 0
    while True:
        try:
            data, passed = packets.receive(sock, flags)
        except BlockingIOError:  # that was all for now
            return Batch(births)
        except OSError:  # the server is gone
            return Batch([])
        if not data:
            return Batch([])
        match wire.decode_order(data):
            case wire.Fork() as fork:
                births.append(Order(fork, passed))
            case wire.Configure() | wire.Amend() as other:
                return Batch(births, other)
            case unexpected:
                raise AssertionError(unexpected)
        flags = socket.MSG_DONTWAIT
