"""Load by `ab` (ApacheBench) over loopback, and what it says about it."""

import csv
import re
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench.session import BenchError

_TIMEOUT_SECONDS = 120.0

# "Failed requests:        0", but not "Server Hostname:        127.0.0.1".
_FIGURE = re.compile(r"^([\w\- ]+):\s+(\d+(?:\.\d+)?)(?![\d.])", re.MULTILINE)


class Load(NamedTuple):
    """One run of ab. `failed` counts everything that was not a complete answer of status 2xx."""

    requests: int
    failed: int
    requests_per_second: float
    p99_milliseconds: float
    slowest_milliseconds: float


def run_ab(ab: str, port: int, requests: int, directory: Path) -> Load:
    """`ab -r -l -c 20`: goes on after errors, answers may differ in length."""
    percentiles = directory / "ab.csv"
    # A second's patience beyond what any deploy should cost would hide a lost request: 10 s.
    command = (
        *(ab, "-r", "-l", "-q", "-c", "20", "-s", "10", "-n", str(requests)),
        *("-e", str(percentiles), f"http://127.0.0.1:{port}/"),
    )
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
    )
    if finished.returncode:
        raise BenchError(f"ab failed: {finished.stderr.strip()}")
    found = {name: float(value) for name, value in _FIGURE.findall(finished.stdout)}
    table = list(csv.reader(percentiles.open()))[1:]
    complete = int(found["Complete requests"])
    failed = int(found["Failed requests"]) + int(found.get("Non-2xx responses", 0))
    return Load(
        complete,
        failed + requests - complete,
        found["Requests per second"],
        float(table[99][1]),
        float(table[-1][1]),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
