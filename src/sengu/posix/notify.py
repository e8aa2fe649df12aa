"""sd_notify(3), from the worker's side: one datagram to NOTIFY_SOCKET."""

import os
import socket


def notify(*lines: str) -> None:
    """Tell the server; lost without complaint when it is not there."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), target)
        except OSError:  # the server is being replaced, or gone: the lifeline tells that
            return
