"""The load: clients that send requests at a rhythm, each on a connection of its own.

A process of its own (`python -m sengu.demo.load ORDER`), so that drawing a screen does not show
up as latency. It writes a line for each request, stops when its stdin ends, and lets the requests
in hand come to their end first. Imported by nobody.
"""

import asyncio
import os
import socket
import sys

import msgspec

from sengu.demo.request import Fault, LoadOrder, Request, Stage, encode_line
from sengu.posix import clock

_FLUSH_SECONDS = 0.05  # a write for each request would cost as much as the request
_PIECE_BYTES = 65536
_END_OF_HEAD = b"\r\n\r\n"


class CutError(OSError):
    """The server closed the connection before the answer was complete."""


class Exchange:
    """One request and its answer. Remembers how far it came."""

    def __init__(self, order: LoadOrder) -> None:
        self._order = order
        self.stage = Stage.CONNECT
        self.sent = 0.0

    async def run(self) -> bytes:
        """The answer, complete. Raises OSError, which TimeoutError is one of."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._order.timeout_seconds):
            with socket.socket() as link:
                link.setblocking(False)
                await loop.sock_connect(link, ("127.0.0.1", self._order.port))
                self.stage = Stage.SEND
                await loop.sock_sendall(link, self._words())
                self.sent = clock.monotonic()
                self.stage = Stage.RECEIVE
                answer = b""
                while not is_complete(answer):
                    piece = await loop.sock_recv(link, _PIECE_BYTES)
                    if not piece:
                        raise CutError(f"closed after {len(answer)} bytes")
                    answer += piece
                return answer

    def _words(self) -> bytes:
        return f"GET {self._order.target} HTTP/1.1\r\nHost: demo\r\n\r\n".encode()


def is_complete(answer: bytes) -> bool:
    """Whether head and body are there (RFC 9112 §6.3; the server sends Content-Length)."""
    head, found, body = answer.partition(_END_OF_HEAD)
    return bool(found) and len(body) >= int(_fields(head).get("content-length", "0"))


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


async def ask(order: LoadOrder, begun: float) -> Request:
    """Send one request and tell how it went, whatever happens."""
    exchange = Exchange(order)
    try:
        answer = await exchange.run()
    except OSError as problem:
        ended = clock.monotonic()
        fault = _fault(problem, exchange.stage)
        return Request(begun, exchange.sent, ended, exchange.stage, fault, str(problem))
    request = Request(begun, exchange.sent, clock.monotonic())
    return _read(answer, request)


def _fault(problem: OSError, stage: Stage) -> Fault:
    if isinstance(problem, TimeoutError):
        return Fault.TIMEOUT
    # A process that is killed can cut what it has accepted; who cannot connect met nobody.
    return Fault.REFUSED if stage is Stage.CONNECT else Fault.CUT


def _read(answer: bytes, request: Request) -> Request:
    head = answer.partition(_END_OF_HEAD)[0]
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if " 200 " not in status:
        return msgspec.structs.replace(
            request, stage=Stage.ANSWER, fault=Fault.STATUS, detail=status
        )
    fields = _fields(head)
    return msgspec.structs.replace(
        request,
        version=fields.get("x-version", ""),
        generation=int(fields.get("x-generation") or 0),
        pid=int(fields.get("x-pid") or 0),
    )


class Load:
    """All clients, and what they have to tell."""

    def __init__(self, order: LoadOrder) -> None:
        self._order = order
        self._told = bytearray()
        self._count = 0
        self._stopping = False

    async def run(self) -> None:
        """Until stdin ends: that is also what happens when whoever started us dies."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._hear)
        flushing = asyncio.create_task(self._flush_for_ever())
        start = clock.monotonic()
        share = self._order.interval_seconds / self._order.clients
        await asyncio.gather(
            *(self._client(start + share * number) for number in range(self._order.clients))
        )
        flushing.cancel()
        self._told += encode_line(self._count)
        self._flush()

    def _hear(self) -> None:
        if not os.read(sys.stdin.fileno(), _PIECE_BYTES):
            self._stopping = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    async def _client(self, due: float) -> None:
        interval = self._order.interval_seconds
        while not self._stopping:
            # A request that had to wait for the one before it counts from when it was due:
            # otherwise a server that stalls would be measured only when it does not.
            begun = due
            if (left := due - clock.monotonic()) > 0:
                await asyncio.sleep(left)
                begun = clock.monotonic()  # what the timer is late is not the server's doing
            request = await ask(self._order, begun)
            self._count += 1
            self._told += encode_line(request)
            due = max(due + interval, request.ended - interval)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._flush()

    def _flush(self) -> None:
        told, self._told = self._told, bytearray()
        sys.stdout.buffer.write(told)
        sys.stdout.buffer.flush()


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=LoadOrder)
    asyncio.run(Load(order).run())


if __name__ == "__main__":
    main()
