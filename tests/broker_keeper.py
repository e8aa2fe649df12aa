"""The RabbitMQ that all pytest processes of a run share, and the process that keeps it.

`shared` is what tests use. It runs `python -m tests.broker_keeper FD`, where FD listens. Whoever
connects is told how to reach the broker, and has joined until its connection ends, also by being
killed. After the last one the broker is killed, and only then that connection is closed, so that
who waits for its end knows that nothing is left.
"""

import json
import os
import select
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import broker_nodes, processes
from tests.broker import Broker


@contextmanager
def shared() -> Iterator[Broker]:
    """The broker of all pytest processes of this run: the first starts it, the last ends it.

    A process has joined as long as a connection to the keeper is open, so that also one that is
    killed has left.
    """
    broker_nodes.require()
    with closing(_join()) as keeper:
        told = json.loads(keeper.makefile().readline())
        if "problem" in told:
            pytest.fail(told["problem"])
        yield Broker(**told)
        keeper.shutdown(socket.SHUT_WR)
        keeper.recv(1)  # its end: all is gone, if we were the last


def _join() -> socket.socket:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    address = f"\0sengu-test-broker-{run}"
    while True:
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.connect(address)
            if keeper.recv(1, socket.MSG_PEEK):
                return keeper
        except ConnectionRefusedError:
            _start_keeper(address)
        except ConnectionResetError:  # it is just ending
            pass
        keeper.close()


def _start_keeper(address: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        try:
            listener.bind(address)
        except OSError:  # another process was first: EADDRINUSE
            return
        listener.listen()
        fd = listener.fileno()
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.broker_keeper", str(fd)],
            cwd=Path(__file__).parents[1],
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        processes.keep(keeper)


def main(listener: socket.socket) -> None:
    first = listener.accept()[0]
    try:
        with broker_nodes.node() as node:
            last = _serve(listener, first, node)
            listener.close()
    except Exception as error:  # whatever it is, who waits has to know
        first.sendall(json.dumps({"problem": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        raise
    last.close()


def _serve(listener: socket.socket, first: socket.socket, node: Broker) -> socket.socket:
    """Until all have left; the connection of the last."""
    told = {
        "name": node.name,
        "env": node.env,
        "port": node.port,
        "management_port": node.management_port,
    }
    greeting = json.dumps(told).encode() + b"\n"
    first.sendall(greeting)
    joined = {first}
    while True:
        for ready in select.select([listener, *joined], [], [])[0]:
            if ready is listener:
                new = listener.accept()[0]
                new.sendall(greeting)
                joined.add(new)
            elif len(joined) == 1:
                return first if ready is first else ready
            else:
                joined.remove(ready)
                ready.close()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
