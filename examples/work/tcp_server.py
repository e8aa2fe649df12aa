"""Workers that accept on one socket, which their server class has opened before they were forked.

`self.sockets` has sengu itself open it, so that it stays across deploys and deaths: a socket that
`before_run` bound by itself would be in the way of that of the next generation.
"""

import select

import sengu


class Shared(sengu.Server):
    def before_run(self) -> None:
        host, port = self.config.get("bind", "127.0.0.1"), self.config.get("port", 9071)
        self.listener = self.sockets.listen_tcp(host, port)
        self.listener.setblocking(False)


class Acceptor(sengu.Worker):
    server: Shared

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.server.listener, select.POLLIN)
        poll.register(self.stopping, select.POLLIN)
        while not self.stopping.is_set():
            poll.poll()
            self.serve()

    def serve(self) -> None:
        try:
            client, _ = self.server.listener.accept()
        except BlockingIOError:  # another worker was faster, or we are to stop
            return
        with client:
            client.sendall(f"awesome work in slot {self.slot}\n".encode())


if __name__ == "__main__":
    config = {"bind": "127.0.0.1", "port": 9071}
    sengu.run(Acceptor, server=Shared, workers=4, config=config)
