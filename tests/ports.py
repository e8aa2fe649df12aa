"""Ports for servers that tests and benchmarks start. Nothing of sengu is imported."""

import itertools
import os
import random
import socket
from contextlib import suppress
from pathlib import Path

_FIRST = 10_240
_STRIDE = 16  # as many processes of pytest-xdist have ports of their own
_RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _STRIDE
_numbers = itertools.count(random.randrange(4096) * _STRIDE + _process, _STRIDE)


def free_port() -> int:
    """One that nobody has on any address, and that the kernel gives to no client meanwhile: it lies
    below those that clients get. Others who ask, in this process or beside it, get other ones."""
    end = max(int(_RANGE_OF_CLIENTS.read_text().split()[0]), _FIRST + 10_000)
    size = (end - _FIRST) // _STRIDE * _STRIDE
    while True:
        port = _FIRST + next(_numbers) % size
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
