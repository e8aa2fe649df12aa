#!/usr/bin/env python3
"""A worker that shares its listening sockets with others: see README.md."""

import contextlib
import os
import random
import select
import signal
import socket
import time

CLIENT_SECONDS = 5.0


def open_listeners() -> list[socket.socket]:
    """sd_listen_fds(3): so many descriptors from 3 on, if they are meant for us."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise SystemExit("no listening socket in LISTEN_FDS")
    return [socket.socket(fileno=3 + index) for index in range(int(os.environ["LISTEN_FDS"]))]


def notify(state: str) -> None:
    """sd_notify(3); a manager that is gone must not stop the service."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract name
        address = "\0" + address[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        contextlib.suppress(OSError),
    ):
        sender.sendto(state.encode(), address)


def serve(client: socket.socket) -> None:
    """One line in: the milliseconds of work wanted. One line out: our pid."""
    client.settimeout(CLIENT_SECONDS)
    line = b""
    while b"\n" not in line and len(line) < 32:
        if not (received := client.recv(32)):
            return
        line += received
    with contextlib.suppress(ValueError):  # no number is no work
        time.sleep(max(0, int(line)) / 1000)
    client.sendall(f"{os.getpid()}\n".encode())
    # Closing with bytes unread would send a reset, which can overtake the answer.
    client.shutdown(socket.SHUT_WR)
    while client.recv(256):
        pass


def main() -> None:
    # TERM arrives as a byte on a socket: it interrupts no work, and no wait misses it.
    stop, wake_up = socket.socketpair()
    wake_up.setblocking(False)
    signal.set_wakeup_fd(wake_up.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    listeners = open_listeners()
    for listener in listeners:
        listener.setblocking(False)
    notify("READY=1")
    while stop not in (ready := select.select([stop, *listeners], [], [])[0]):
        try:
            client, _address = random.choice(ready).accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue  # another worker was quicker, or the client gave up
        with client, contextlib.suppress(OSError):  # the client's trouble, not ours
            serve(client)


if __name__ == "__main__":
    main()
