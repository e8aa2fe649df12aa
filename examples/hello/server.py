#!/usr/bin/env python3
"""A small HTTP/1.1 server, one request at a time, for any manager of listening sockets.

It knows no manager by name. Its sockets come as sd_listen_fds(3) describes (started alone, it
binds 127.0.0.1:8080), and it tells its readiness as sd_notify(3) describes. TERM ends it when
the request in hand is answered; what waits in the queue is left to the other processes that
share the socket. `GET /` says which version answers, `GET /slow?seconds=2` takes its time.
"""

import contextlib
import os
import random
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

REQUEST_SECONDS = 5.0  # a client that has not sent its request by then is let go
LINGER_SECONDS = 1.0
MAX_HEAD_BYTES = 16 * 1024

VERSION = Path(__file__).with_name("VERSION").read_text().strip()
IDENTITY = (
    f"X-Version: {VERSION}\r\n"
    f"X-Pid: {os.getpid()}\r\n"
    f"X-Generation: {os.environ.get('SERVER_STARTER_GENERATION', '')}\r\n"
)


def open_listeners() -> list[socket.socket]:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return [socket.create_server(("127.0.0.1", 8080))]
    return [socket.socket(fileno=3 + index) for index in range(int(os.environ["LISTEN_FDS"]))]


def notify(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract name
        address = "\0" + address[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        contextlib.suppress(OSError),  # a manager that is gone must not stop the service
    ):
        sender.sendto(state.encode(), address)


def receive(client: socket.socket, seconds: float) -> Iterator[bytes]:
    """What the client sends until it has no more; TimeoutError when that takes too long."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        client.settimeout(left)
        if not (received := client.recv(4096)):
            return
        yield received
    raise TimeoutError


def answer(head: bytes) -> tuple[str, str]:
    """Status line and body for a request."""
    try:
        request, _end = head.decode("latin-1").split("\r\n\r\n", 1)
        method, target, _protocol = request.split("\r\n")[0].split(" ")
        url = urlsplit(target)
        seconds = float(parse_qs(url.query).get("seconds", ["1"])[0])
    except ValueError:
        return "400 Bad Request", "that was no request\n"
    if method not in {"GET", "HEAD"}:
        return "405 Method Not Allowed", "GET or HEAD, please\n"
    if url.path == "/slow":
        time.sleep(min(max(0.0, seconds), 60.0))
    elif url.path != "/":
        return "404 Not Found", "only / and /slow are here\n"
    return "200 OK", f"hello from version {VERSION}, process {os.getpid()}\n"


def serve(client: socket.socket) -> None:
    head = b""
    for received in receive(client, REQUEST_SECONDS):
        head += received
        if b"\r\n\r\n" in head or len(head) > MAX_HEAD_BYTES:
            break
    status, body = answer(head)
    reply = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n{IDENTITY}\r\n{'' if head.startswith(b'HEAD ') else body}"
    )
    client.settimeout(REQUEST_SECONDS)
    client.sendall(reply.encode())
    # Closing while bytes are unread would send a reset, which can overtake the answer.
    client.shutdown(socket.SHUT_WR)
    for _ in receive(client, LINGER_SECONDS):
        pass


def main() -> None:
    # Signals arrive as bytes on a socket, so that one that comes between two system calls is
    # seen by the next wait, and none interrupts a request.
    stop, wake_up = socket.socketpair()
    wake_up.setblocking(False)
    signal.set_wakeup_fd(wake_up.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    listeners = open_listeners()
    for listener in listeners:
        listener.setblocking(False)
    notify(f"READY=1\nSTATUS=serving version {VERSION}")
    while stop not in (ready := select.select([stop, *listeners], [], [])[0]):
        try:
            client, _address = random.choice(ready).accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue  # another process was quicker, or the client gave up
        with client, contextlib.suppress(OSError):  # the client's trouble, not ours
            serve(client)
    notify("STOPPING=1\nSTATUS=finished")


if __name__ == "__main__":
    main()
