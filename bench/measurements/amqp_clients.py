"""Which client library: what a message costs with each, and how soon each misses its broker."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import NamedTuple

from bench import broker, processes
from bench.compare import bar_chart, peer_rows
from bench.program import distribution_version, last_line
from bench.programs.amqp_clients import LIBRARIES
from bench.registry import Measurement
from bench.results import Result, Row, significant
from bench.session import BenchError, Session
from sengu.consumers import Publisher

_MODULE = "bench.programs.amqp_clients"
_QUEUE = "jobs"
_BODY = bytes(200)
_PREFETCHES = (10, 100)
_PATIENCE_SECONDS = 60.0
_MISSED_SECONDS = 5.0

HOW = """\
One process takes {count} messages of {size} bytes from a quorum queue that is full before it
starts. Five threads run an empty job for each; then the message is acknowledged by itself, from the
thread where the library wants that: only amqpstorm takes it from all. The rest wakes the
connection's thread once for all jobs that have ended meanwhile; aio-pika has its event loop for
that. `our loop` is pika's protocol on the loop of `sengu consume`, which sends all
acknowledgements of a round at once, and here each for itself. CPU is that of the process from the
first message to the last acknowledgement. {rounds} rounds, in which all take turns. Then all wait
at an empty queue when the broker is killed with -9{and_stopped}: which
of them end, by an error or by themselves, within {missed:g} s."""


class Cost(NamedTuple):
    """Of a message."""

    rate: float
    microseconds: float


def run(session: Session) -> Result:
    rounds, count = session.pick((3, 10_000), (1, 1_000))
    there = [name for name in LIBRARIES if distribution_version(_distribution(name))]
    found: dict[int, dict[str, list[Cost]]] = {}
    with broker.node() as node:
        version = broker.version(node)
        for _ in range(rounds):
            for prefetch in session.pick(_PREFETCHES, _PREFETCHES[-1:]):
                for name in there:
                    cost = _measure(name, node, prefetch, count)
                    found.setdefault(prefetch, {}).setdefault(name, []).append(cost)
        ends: dict[str, Callable[[], None]] = {"killed": node.kill, "stopped": node.stop}
        missed = {
            end: _missed(there, node, ends[end])
            for end in session.pick(("killed", "stopped"), ("killed",))
        }
    and_stopped = session.pick(", and when it is stopped in order", "")
    how = HOW.format(
        count=count, size=len(_BODY), rounds=rounds, and_stopped=and_stopped, missed=_MISSED_SECONDS
    )
    versions = [f"{name} {distribution_version(name)}" for name in _distributions(there)]
    result = Result("Client libraries of RabbitMQ", how, [])
    result.versions = ", ".join([*versions, version])
    for prefetch, each in found.items():
        _tell(result, prefetch, each)
    result.rows += [_missed_row(end, each) for end, each in missed.items()]
    result.notes = [f"{name} is not installed here." for name in LIBRARIES if name not in there]
    return result


def _distribution(library: str) -> str:
    return library.partition(",")[0]


def _distributions(libraries: list[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(map(_distribution, libraries)))


def _measure(name: str, node: broker.Node, prefetch: int, count: int) -> Cost:
    with node.own_vhost():
        node.declare(_QUEUE, **{"x-queue-type": "quorum"})
        with Publisher(node.url) as publisher:
            publisher.publish_all(_QUEUE, [_BODY] * count)
        done = subprocess.run(
            _command(name, node, prefetch, count),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
    if done.returncode:
        raise BenchError(f"{name} failed: {last_line(done.stderr)}")
    return Cost(*map(float, last_line(done.stdout).split()))


def _command(name: str, node: broker.Node, prefetch: int, count: int) -> tuple[str, ...]:
    return (sys.executable, "-m", _MODULE, name, node.url, str(prefetch), str(count))


def _missed(names: list[str], node: broker.Node, end: Callable[[], None]) -> dict[str, bool]:
    """Which of them have ended by so many seconds after the broker."""
    node.start()
    node.declare(_QUEUE, **{"x-queue-type": "quorum"})
    with ExitStack() as stack:
        running = {name: stack.enter_context(_waiting(name, node)) for name in names}
        for name, process in running.items():
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise BenchError(f"{name} could not subscribe")
        end()
        left = processes.wait_gone([one.pid for one in running.values()], _MISSED_SECONDS)
        return {name: process.pid not in left for name, process in running.items()}


@contextmanager
def _waiting(name: str, node: broker.Node) -> Iterator["subprocess.Popen[bytes]"]:
    command = _command(name, node, _PREFETCHES[0], 1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _tell(result: Result, prefetch: int, found: dict[str, list[Cost]]) -> None:
    title = f"CPU of a message, prefetch {prefetch}"
    costs = {name: [one.microseconds for one in many] for name, many in found.items()}
    rates = {name: [one.rate for one in many] for name, many in found.items()}
    asides = {name: f", {significant(median(many))}/s" for name, many in rates.items()}
    result.rows += peer_rows(title, costs, "µs", {}, asides)
    result.charts.append(bar_chart(f"amqp-clients-{prefetch}", title, "µs", costs))
    for name in found:
        result.samples[f"{name}, prefetch {prefetch}, µs"] = costs[name]
        result.samples[f"{name}, prefetch {prefetch}, /s"] = rates[name]


def _missed_row(how: str, missed: dict[str, bool]) -> Row:
    ours, *others = (f"{name}: {'yes' if has else '**no**'}" for name, has in missed.items())
    what = f"broker {how}: misses it within {_MISSED_SECONDS:g} s"
    return Row(what, ours.rpartition(" ")[2], "; ".join(others))


MEASUREMENT = Measurement("amqp-clients", 210, run)
