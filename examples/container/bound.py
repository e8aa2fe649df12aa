#!/usr/bin/env python3
"""A web server that binds its port with SO_REUSEPORT, so that two may be there at a time.

It knows nothing of sengu. PORT is the variable of that name, 8080 if it is not set. On TERM it
answers the request in hand, and ends.
"""

import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Tells which generation answers."""

    def do_GET(self) -> None:
        generation = os.environ.get("SENGU_GENERATION", "?")
        body = f"hello from generation {generation}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """No log of requests."""


class Server(ThreadingHTTPServer):
    """One whose threads are waited for at the end."""

    daemon_threads = False
    request_queue_size = 128

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


def main() -> None:
    """Serve until TERM."""
    with Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler) as server:
        # Not from the handler itself: shutdown() waits for the loop that the handler interrupts.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"listening on port {server.server_port}", flush=True)
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
