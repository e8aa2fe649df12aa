"""An HTTP connection of an ASGI worker, without a worker."""

import asyncio
import socket

from uvicorn.config import Config

from sengu.http.asgi.connection import HttpConnection
from sengu.http.asgi.state import State
from sengu.http.asgi.types import Receive, Scope, Send
from sengu.model.web import WebOptions
from sengu.wire.scoreboard import LINE_BYTES
from sengu.worker.board import Lane


class _Transport(asyncio.Transport):
    """As that of TLS: its socket is closed some steps before its protocol hears of that."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})

    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0


async def _app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError("there is no request")


def test_a_connection_whose_socket_is_closed_waits_for_its_end() -> None:
    async def expire() -> float:
        config = Config(_app, log_config=None, interface="asgi3")
        state = State(WebOptions("tests:app"), Lane(memoryview(bytearray(LINE_BYTES)), 0))
        connection = HttpConnection(config, state, {})
        with socket.socket() as sock:
            connection.connection_made(_Transport(sock))
        connection.expire(1.0)
        return connection.deadline

    assert asyncio.run(expire()) > 1.0  # should the end not come, it is looked at again
