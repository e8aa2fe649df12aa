"""Load over loopback by `ab` (ApacheBench) and `wrk`, and what they say about it."""

import csv
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.session import SOURCES, BenchError, find_program

_TIMEOUT_SECONDS = 300.0
# A second's patience beyond what any deploy should cost would hide a lost request: 10 s.
_PATIENCE_SECONDS = 10
# ab has room for so many before it begins, so it is not endless.
_MOST_REQUESTS = 1_000_000

# "Failed requests:        0", but not "Server Hostname:        127.0.0.1".
_FIGURE = re.compile(r"^([\w\- ]+):\s+(\d+(?:\.\d+)?)(?![\d.])", re.MULTILINE)

# "   (Connect: 0, Receive: 3, Length: 0, Exceptions: 3)": a reset is in two of them, and counts
# twice in "Failed requests".
_KINDS = re.compile(r"\(Connect: \d+, Receive: (\d+), Length: \d+, Exceptions: (\d+)\)")
_ABORTED = re.compile(r"Total of (\d+) requests completed")

# wrk: "  71204 requests in 1.00s, ...", "     99%    1.24ms", and only when there was any,
# "  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx or 3xx responses: 7".
_DONE = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m)")
_P99 = re.compile(r"^ +99% +([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_SLOWEST = re.compile(r"^ +Latency +\S+ +\S+ +([\d.]+)(us|ms|s|m)", re.MULTILINE)
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_REFUSALS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Load(NamedTuple):
    """One run. `failed` counts everything that was not a complete answer of status 2xx.

    For wrk, a connection that is closed while it waits for an answer is a failure as well.
    """

    requests: int
    failed: int
    requests_per_second: float
    p99_milliseconds: float
    slowest_milliseconds: float


class AbortedError(BenchError):
    """ab has given up, as it does after some connections that could not be made, even with -r."""

    def __init__(self, completed: int, words: str) -> None:
        super().__init__(f"ab gave up after {completed} requests: {words}")
        self.completed, self.words = completed, words


class Generator(Protocol):
    """Whatever makes load for some time."""

    @property
    def title(self) -> str: ...

    def run_for(self, port: int, seconds: int, directory: Path) -> Load: ...


class Ab(NamedTuple):
    """`ab -r -l`: goes on after errors, answers may differ in length."""

    connections: int = 20
    keeps_alive: bool = False

    @property
    def title(self) -> str:
        return f"ab{' -k' if self.keeps_alive else ''} -c {self.connections}"

    def run(self, port: int, requests: int, directory: Path) -> Load:
        """So many requests, none of which may be missing."""
        load = self._run(port, ("-n", str(requests)), directory)
        return load._replace(failed=load.failed + requests - load.requests)

    def run_for(self, port: int, seconds: int, directory: Path) -> Load:
        """As many requests as there is time for; what is in flight at the end does not count."""
        return self._run(port, ("-t", str(seconds), "-n", str(_MOST_REQUESTS)), directory)

    def _run(self, port: int, amount: Sequence[str], directory: Path) -> Load:
        percentiles = directory / "ab.csv"
        command = (
            *(find_program("ab"), "-r", "-l", "-q", "-s", str(_PATIENCE_SECONDS)),
            *("-c", str(self.connections), *(("-k",) if self.keeps_alive else ()), *amount),
            *("-e", str(percentiles), f"http://127.0.0.1:{port}/"),
        )
        said = _run_ab(command)
        found = {name: float(value) for name, value in _FIGURE.findall(said)}
        kinds = _KINDS.search(said)
        counted_twice = min(map(int, kinds.groups())) if kinds else 0
        table = list(csv.reader(percentiles.open()))[1:]
        return Load(
            int(found["Complete requests"]),
            int(found["Failed requests"]) - counted_twice + int(found.get("Non-2xx responses", 0)),
            found["Requests per second"],
            float(table[99][1]),
            float(table[-1][1]),
        )


class Wrk(NamedTuple):
    """`wrk -t 1`: HTTP/1.1, connections are kept; it opens a new one where one was closed.

    `script` is one of ours in Lua, which makes the requests.
    """

    connections: int = 16
    script: str = ""

    @property
    def title(self) -> str:
        return f"wrk -c {self.connections}{' -s ' + self.script if self.script else ''}"

    def run_for(self, port: int, seconds: int, _directory: Path) -> Load:
        said = _run(
            (
                *(find_program("wrk"), "-t", "1", "-c", str(self.connections), "--latency"),
                *("-d", f"{seconds}s", "--timeout", f"{_PATIENCE_SECONDS}s"),
                *(("-s", str(SOURCES / self.script)) if self.script else ()),
                f"http://127.0.0.1:{port}/",
            )
        )
        done, errors, refusals = _DONE.search(said), _ERRORS.search(said), _REFUSALS.search(said)
        if done is None:
            raise BenchError(f"wrk said: {said}")
        requests = int(done[1])
        failed = sum(map(int, errors.groups())) if errors else 0
        failed += int(refusals[1]) if refusals else 0
        taken = float(done[2]) * _MILLISECONDS[done[3]] / 1000
        return Load(requests, failed, requests / taken, _time(_P99, said), _time(_SLOWEST, said))


def _time(pattern: re.Pattern[str], said: str) -> float:
    """Milliseconds."""
    found = pattern.search(said)
    if found is None:
        raise BenchError(f"wrk said: {said}")
    return float(found[1]) * _MILLISECONDS[found[2]]


def _run(command: Sequence[str]) -> str:
    finished = _finish(command)
    if finished.returncode:
        raise BenchError(f"{command[0]} failed: {finished.stderr.strip()}")
    return finished.stdout


def _run_ab(command: Sequence[str]) -> str:
    """Raises AbortedError as well."""
    finished = _finish(command)
    aborted = _ABORTED.search(finished.stdout)
    if finished.returncode and aborted:
        raise AbortedError(int(aborted[1]), finished.stderr.strip())
    if finished.returncode:
        raise BenchError(f"{command[0]} failed: {finished.stderr.strip()}")
    return finished.stdout


def _finish(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
    )
