"""A worker that asks for its port when it runs; nobody has told sengu of it before.

    sengu start -w 2 --ready notify -- python examples/managed_sockets/asking.py 5000

Both workers get the same socket, and so do those of the next generation: try `sengu reload` while
clients ask, or kill -9 whichever process you like.
"""

import os
import signal
import socket
import socketserver
import sys
import threading
from types import FrameType

from sengu.work.servers import server_from
from sengu.work.sockets import SocketManager


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Answer a line with the pid."""
        self.rfile.readline()
        self.wfile.write(f"{os.getpid()}\n".encode())


def say_ready() -> None:
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", "\0" + name.removeprefix("@"))


def main() -> None:
    listener = SocketManager().listen_tcp("127.0.0.1", int(sys.argv[1]))
    server = server_from(listener, Handler, socketserver.ThreadingTCPServer)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    say_ready()
    with server:
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
