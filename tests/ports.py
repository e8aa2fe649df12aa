"""Ports for servers that tests and benchmarks start. Nothing of sengu is imported."""

import itertools
import random
import socket
from contextlib import suppress
from pathlib import Path

_FIRST = 10_240
_RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_numbers = itertools.count(random.randrange(65_536))


def free_port() -> int:
    """One that nobody has on any address, and that the kernel gives to no client meanwhile: it lies
    below those that clients get. Others who ask, in this process or beside it, get other ones."""
    end = max(int(_RANGE_OF_CLIENTS.read_text().split()[0]), _FIRST + 10_000)
    while True:
        port = _FIRST + next(_numbers) % (end - _FIRST)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
