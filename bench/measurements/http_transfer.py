"""A gigabyte up and down: how fast, and how much memory the worker needs for it."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import client, processes
from bench.compare import bar_row, peer_rows
from bench.registry import Measurement
from bench.results import Result
from bench.session import BenchError, Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.granian import Granian
from bench.webservers.gunicorn import Gunicorn
from bench.webservers.in_c import Bjoern
from bench.webservers.sengu import Sengu
from bench.webservers.uwsgi import Uwsgi

_KINDS: tuple[type[WebServer], ...] = (Sengu, Gunicorn, Uwsgi, Granian, Bjoern)
_MOST_GROWTH_MEGABYTES = 4.0
_BLOCK_BYTES = 1 << 20

HOW = """\
One worker, one connection for each transfer of {megabytes} MB, on which nothing else happens: the
body of a request, which the application reads in blocks of 64 KiB; a response of blocks of 64 KiB
from an iterator; a file in memory by `wsgi.file_wrapper`. {rounds} of each, in turns. MB/s are by
the client's clock; memory is what the worker's peak (`VmHWM`, reset before) was above its resident
memory before the transfer."""


class Transfers:
    """What was seen, by kind of transfer and label."""

    def __init__(self) -> None:
        self.rates: dict[str, dict[str, list[float]]] = {}
        self.growth: dict[str, dict[str, list[float]]] = {}

    def take(self, what: str, server: WebServer, transfer: Callable[[], int], size: int) -> None:
        worker = server.worker_pid()
        processes.reset_peak(worker)
        before = processes.peak_bytes(worker)
        begin = time.monotonic()
        moved = transfer()
        seconds = time.monotonic() - begin
        if moved != size:
            raise BenchError(f"{server.label}, {what}: {moved} bytes instead of {size}")
        grown = max(0, processes.peak_bytes(worker) - before)
        rates = self.rates.setdefault(what, {}).setdefault(server.label, [])
        rates.append(size / seconds / 1e6)
        self.growth.setdefault(what, {}).setdefault(server.label, []).append(grown / 1e6)


def run(session: Session) -> Result:
    rounds = session.pick(3, 1)
    size = session.pick(1000, 50) * 1_000_000
    found = Transfers()
    with ExitStack() as stack:
        path = session.fresh_directory() / "file"
        path.touch()
        os.truncate(path, size)
        servers = []
        for kind in present(*_KINDS):
            site = Site(module="bulk")
            server = stack.enter_context(kind(session.fresh_directory(), site))
            server.wait_answer()
            servers.append(server)
        for number in range(rounds):
            session.say(f"round {number + 1} of {rounds}")
            for server in servers:
                _take_turn(found, server, path, size)
    how = HOW.format(megabytes=size // 1_000_000, rounds=rounds)
    return _result(how, found)


def _take_turn(found: Transfers, server: WebServer, path: Path, size: int) -> None:
    port = server.port
    found.take("upload", server, lambda: _upload(port, size), size)
    found.take("download", server, lambda: _download(port, f"/stream?{size}"), size)
    found.take("download of a file", server, lambda: _download(port, f"/file?{path}"), size)


def _upload(port: int, size: int) -> int:
    """What the application says that it has got."""
    block = bytes(_BLOCK_BYTES)
    with client.connect(port) as connection:
        head = f"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        for begin in range(0, size, _BLOCK_BYTES):
            connection.sendall(block[: size - begin])
        _length, answer = client.read_head(connection)
        return int(answer or connection.recv(64))


def _download(port: int, path: str) -> int:
    """How much of the response's body came."""
    buffer = bytearray(_BLOCK_BYTES)
    with client.connect(port) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        length, begin = client.read_head(connection)
        total = len(begin)
        while total < length and (got := connection.recv_into(buffer)):
            total += got
    return total


def _result(how: str, found: Transfers) -> Result:
    rows = []
    samples: dict[str, list[float]] = {}
    for what, growth in found.growth.items():
        rate = f"{what}: MB/s"
        rows.append(bar_row(f"{what}: memory", growth["sengu"], "MB", _MOST_GROWTH_MEGABYTES))
        rows += peer_rows(f"{what}: memory", growth, "MB", {}, {})
        rows += peer_rows(rate, found.rates[what], "MB/s", {}, {})
        samples |= {f"{label}, {what}, MB": values for label, values in growth.items()}
        samples |= {f"{label}, {rate}": values for label, values in found.rates[what].items()}
    return Result(
        title="A gigabyte up and down",
        how=how,
        rows=rows,
        notes=missing_notes(*_KINDS),
        samples=samples,
        versions=versions(*_KINDS),
    )


MEASUREMENT = Measurement("http-transfer", 170, run)
