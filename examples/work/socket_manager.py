"""Workers that ask for their socket when they run; all of them get the same one."""

import os
import socketserver

import sengu
from sengu.work.servers import server_from


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"awesome work in process {os.getpid()}\n".encode())


class Listening(sengu.Worker):
    def setup(self) -> None:
        listener = self.sockets.listen_tcp("127.0.0.1", self.config.get("port", 12345))
        self.tcp = server_from(listener, Handler, socketserver.ThreadingTCPServer)

    def run(self) -> None:
        self.tcp.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        self.tcp.shutdown()

    def teardown(self) -> None:
        self.tcp.server_close()


if __name__ == "__main__":
    sengu.run(Listening, workers=4)
