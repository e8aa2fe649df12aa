"""Hosts of their own for tests: network namespaces that reach a broker of this one.

    with broker_host.host(broker) as host:
        sengu.start(..., prefix=host.prefix)   # there, host.url is the broker's

A namespace has a loopback interface and nothing else. Its end of the way to the broker is a
socket that listens there on AMQP's own port; the other end connects from here, so that nothing
but loopback is ever listened on. `python -m tests.broker_host PORT` is one of them: it says
`ready`, and ends when its input does.
"""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests import netns
from tests.broker import Broker
from tests.support import give_up, needs_root, requires

_PORT = 5672


class Host(NamedTuple):
    """`prefix` is a command that executes the rest of its arguments there. Nothing passes between
    it and the broker while the process `pid` stands still.
    """

    prefix: tuple[str, ...]
    url: str
    pid: int


@contextmanager
def host(broker: Broker) -> Iterator[Host]:
    """What runs there is the test's to end before."""
    needs_root()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.broker_host", str(broker.port)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        said = process.stdout.readline().decode().strip()
        if said != "ready":
            give_up(f"no network namespace can be made: {said}")
        namespace = f"--net=/proc/{process.pid}/ns/net"
        url = broker.url_at("127.0.0.1", _PORT)
        yield Host((requires("nsenter"), namespace, "--"), url, process.pid)
        process.stdin.close()


def _main(port: int) -> None:
    """The first thread goes into the namespace, and with it what /proc says of the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    try:
        netns.enter()
    except OSError as error:
        print(error, flush=True)
        return
    listener = socket.create_server(("127.0.0.1", _PORT))
    asyncio.run_coroutine_threadsafe(_relay(listener, port), loop).result()
    print("ready", flush=True)
    sys.stdin.read()


async def _relay(listener: socket.socket, port: int) -> None:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the broker is away
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))

    await asyncio.start_server(join, sock=listener)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):  # then it is over as well
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
