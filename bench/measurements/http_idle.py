"""What a web server costs while nobody asks: ten thousand connections, a hundred workers."""

import resource
import socket
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench import client, processes
from bench.registry import Measurement
from bench.results import Result, Row, significant, times
from bench.session import BenchError, Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.gunicorn import Gunicorn, GunicornThreads
from bench.webservers.in_c import Bjoern
from bench.webservers.sengu import Sengu
from bench.webservers.unicorn import Unicorn
from bench.webservers.uvicorn import Uvicorn

# Each keeps connections for longer than the measurement takes, and has room for them.
_KEEPERS: dict[type[WebServer], tuple[str, ...]] = {
    Sengu: ("--max-connections", "12000"),
    Bjoern: (),
    GunicornThreads: ("--worker-connections", "12000", "--keep-alive", "90"),
    Uvicorn: ("--timeout-keep-alive", "90"),
}
_CROWDS: tuple[type[WebServer], ...] = (Sengu, Gunicorn, Unicorn)
_MOST_IDLE_PART = 0.005
_SPARE_DESCRIPTORS = 200

HOW = """\
{connections} connections to one worker of a hello: each has had an answer, and is kept. Memory is
what the unique memory of the whole tree grew by; CPU is its time on a processor in {seconds} s
(`/proc/PID/task/*/schedstat`). Then every connection is asked once more. After that, {workers}
workers of each of those that can have them, without connections, all at the same time for
{seconds} s."""


class Held(NamedTuple):
    """What idle connections cost: growth of memory, and CPU time. `lost` were closed meanwhile."""

    bytes_each: float
    cpu_milliseconds: float
    lost: int


def run(session: Session) -> Result:
    seconds = session.pick(10.0, 1.0)
    connections = min(session.pick(10_000, 500), _room())
    workers = session.pick(100, 10)
    held = {kind.label: _hold(session, kind, connections, seconds) for kind in present(*_KEEPERS)}
    crowds = _idle_cpu(session, present(*_CROWDS), workers, seconds)
    how = HOW.format(connections=connections, seconds=f"{seconds:g}", workers=workers)
    rows = _held_rows(held, connections, seconds) + _crowd_rows(crowds, workers, seconds)
    kinds: tuple[type[WebServer], ...] = (*_KEEPERS, Gunicorn, Unicorn)
    samples = {f"{label}, connections": list(map(float, found)) for label, found in held.items()}
    samples |= {f"{label}, {workers} workers, CPU ms": [value] for label, value in crowds.items()}
    return Result(
        title="An idle web server",
        how=how,
        rows=rows,
        notes=missing_notes(*kinds),
        samples=samples,
        versions=versions(*kinds),
    )


def _room() -> int:
    """How many connections our own descriptors allow; what is started inherits the limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _SPARE_DESCRIPTORS


def _hold(session: Session, kind: type[WebServer], count: int, seconds: float) -> Held:
    session.say(kind.label)
    site = Site(options=_KEEPERS[kind])
    with kind(session.fresh_directory(), site) as server, ExitStack() as stack:
        server.wait_answer()
        before = processes.unique_bytes(processes.tree(server.pid))
        connections = []
        for _ in range(count):
            connection = stack.enter_context(client.connect(server.port))
            connections.append(connection)
            if not _is_answered(connection):
                raise BenchError(f"{kind.label} refused one more than {len(connections) - 1}")
        grown = processes.unique_bytes(processes.tree(server.pid)) - before
        cpu = server.cpu_seconds()
        time.sleep(seconds)
        used = server.cpu_seconds() - cpu
        lost = sum(not _is_answered(connection) for connection in connections)
    return Held(grown / count, used * 1000, lost)


def _is_answered(connection: socket.socket) -> bool:
    try:
        return client.exchange(connection, "/") == b"hello\n"
    except ConnectionError:  # it was closed
        return False


def _idle_cpu(
    session: Session, kinds: list[type[WebServer]], workers: int, seconds: float
) -> dict[str, float]:
    """CPU milliseconds of each tree."""
    with ExitStack() as stack:
        servers = []
        for kind in kinds:
            server = stack.enter_context(kind(session.fresh_directory(), Site(workers=workers)))
            server.wait_answer()
            servers.append(server)
        time.sleep(session.pick(5.0, 1.0))  # until the last worker is there and at rest
        before = [server.cpu_seconds() for server in servers]
        time.sleep(seconds)
        return {
            server.label: (server.cpu_seconds() - begin) * 1000
            for server, begin in zip(servers, before, strict=True)
        }


def _held_rows(held: dict[str, Held], connections: int, seconds: float) -> list[Row]:
    (_, ours), *others = held.items()
    most = _MOST_IDLE_PART * seconds * 1000
    lost, memory = f"{connections} connections: lost", f"{connections} connections: memory of each"
    cpu = f"{connections} connections: CPU in {seconds:g} s"
    rows = [
        Row(lost, str(ours.lost), bar="0", reached=ours.lost == 0),
        Row(
            cpu,
            _milliseconds(ours.cpu_milliseconds),
            bar=f"≤ {_MOST_IDLE_PART:.1%} = {most:g} ms",
            reached=ours.cpu_milliseconds <= most,
        ),
    ]
    for peer, theirs in others:
        rows += [
            Row(
                memory,
                _kilobytes(ours.bytes_each),
                f"{peer}: {_kilobytes(theirs.bytes_each)}",
                times(ours.bytes_each, theirs.bytes_each),
            ),
            Row(
                cpu,
                _milliseconds(ours.cpu_milliseconds),
                f"{peer}: {_milliseconds(theirs.cpu_milliseconds)}"
                + (f", {theirs.lost} lost" if theirs.lost else ""),
                times(ours.cpu_milliseconds, theirs.cpu_milliseconds),
            ),
        ]
    return rows


def _crowd_rows(crowds: dict[str, float], workers: int, seconds: float) -> list[Row]:
    (_, ours), *others = crowds.items()
    what = f"{workers} workers: CPU in {seconds:g} s"
    most = _MOST_IDLE_PART * seconds * 1000
    bar = f"≤ {_MOST_IDLE_PART:.1%} = {most:g} ms"
    rows = [Row(what, _milliseconds(ours), bar=bar, reached=ours <= most)]
    rows += [
        Row(what, _milliseconds(ours), f"{peer}: {_milliseconds(theirs)}", times(ours, theirs))
        for peer, theirs in others
    ]
    return rows


def _milliseconds(value: float) -> str:
    return f"{significant(value)} ms"


def _kilobytes(value: float) -> str:
    return f"{significant(value / 1000)} kB"


MEASUREMENT = Measurement("http-idle", 160, run)
