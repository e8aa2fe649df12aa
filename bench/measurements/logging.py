"""The log of several processes, rotated all the while: lines per second, and CPU time per line."""

import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench import processes
from bench.managers.base import Order
from bench.managers.sengu import Sengu
from bench.program import distribution_version
from bench.registry import Measurement
from bench.results import Result, Row, significant, times
from bench.session import BenchError, Session

_PROGRAM = Path(__file__).parents[1] / "programs" / "loggers.py"
_PROCESSES = 4
_LINE_BYTES = 139  # loggers.FORMAT and MESSAGE
_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 120.0

_OURS, _QUEUE, _FILE = (
    "sengu",
    "QueueHandler, QueueListener",
    "RotatingFileHandler, one process",
)

HOW = """\
{processes} processes write {lines} lines of {size} bytes in all through Python's `logging`, into a
file that is rotated every 5 MiB. sengu: a StreamHandler on stderr, `--log-rotate-size 5m --log-full
wait`. QueueHandler: a `multiprocessing.Queue` to a QueueListener with a RotatingFileHandler.
RotatingFileHandler alone can not be shared by processes: one writes all lines. The time ends when
the last line is in the file; CPU time is that of all processes. Medians of {rounds} rounds."""


class Found(NamedTuple):
    """Of one round. `carrying` is CPU time of those that carry lines, not of those that log."""

    seconds: float
    cpu_seconds: float
    carrying: float = 0.0


def run(session: Session) -> Result:
    rounds, lines = session.pick(3, 1), session.pick(200_000, 20_000)
    found: dict[str, list[Found]] = {_OURS: [], _QUEUE: [], _FILE: []}
    for _ in range(rounds):
        found[_OURS].append(_ours(session, lines))
        each = (str(lines // _PROCESSES), str(session.fresh_directory() / "log"), str(_PROCESSES))
        found[_QUEUE].append(_python("queue", *each))
        found[_FILE].append(_python("file", str(lines), str(session.fresh_directory() / "log")))
    how = HOW.format(processes=_PROCESSES, lines=lines, size=_LINE_BYTES, rounds=rounds)
    return _result(how, lines, found)


def _ours(session: Session, lines: int) -> Found:
    directory = session.fresh_directory()
    go, log = directory / "go", directory / "log"
    command = (sys.executable, str(_PROGRAM), "stderr", str(lines // _PROCESSES), str(go))
    files = ("--log-file", str(log), "--log-rotate-size", "5m", "--log-keep", "1000")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(go))
        listener.listen()
        listener.settimeout(_PATIENCE_SECONDS)
        order = Order(command, _PROCESSES, options=(*files, "--log-full", "wait"))
        with Sengu(directory, order) as sengu:
            waiting = [listener.accept()[0] for _ in range(_PROCESSES)]
            carriers = [sengu.pid, sengu.control.server_pid(), *_writers(sengu.pid)]
            everybody = processes.tree(sengu.pid)
            carried, used = (processes.on_cpu_seconds(who) for who in (carriers, everybody))
            whole = _size(log) + lines * _LINE_BYTES
            begin = time.monotonic()
            for link in waiting:
                link.close()
            while _size(log) < whole:
                if time.monotonic() > begin + _PATIENCE_SECONDS:
                    raise BenchError(f"{whole - _size(log)} bytes of the log are missing")
                time.sleep(_POLL_SECONDS)
            return Found(
                time.monotonic() - begin,
                processes.on_cpu_seconds(everybody) - used,
                processes.on_cpu_seconds(carriers) - carried,
            )


def _writers(pid: int) -> list[int]:
    command_lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in processes.children(pid)}
    return [pid for pid, path in command_lines.items() if b"logwriter" in path.read_bytes()]


def _size(log: Path) -> int:
    try:
        return sum(path.stat().st_size for path in log.parent.glob("log*"))
    except FileNotFoundError:  # renamed just now
        return 0


def _python(*arguments: str) -> Found:
    command = (sys.executable, str(_PROGRAM), *arguments)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS
    )
    return Found(*map(float, done.stdout.split()))


def _result(how: str, lines: int, found: dict[str, list[Found]]) -> Result:
    rates = {who: [lines / one.seconds for one in many] for who, many in found.items()}
    costs = {who: [one.cpu_seconds / lines * 1e6 for one in many] for who, many in found.items()}
    carried = statistics.median(one.carrying / lines * 1e6 for one in found[_OURS])
    rows = []
    for what, unit, values in (("lines a second", "", rates), ("CPU time of a line", " µs", costs)):
        middle = {who: statistics.median(many) for who, many in values.items()}
        for peer in (_QUEUE, _FILE):
            rows.append(
                Row(
                    f"{what}: against {peer}",
                    significant(middle[_OURS]) + unit,
                    significant(middle[peer]) + unit,
                    times(middle[_OURS], middle[peer]),
                )
            )
    rows.append(Row("of that, what server and log writer need", f"{significant(carried)} µs"))
    samples = {f"{who}, lines a second": many for who, many in rates.items()}
    samples |= {f"{who}, µs of CPU a line": many for who, many in costs.items()}
    ours = f"sengu {distribution_version('sengu')}"
    version = f"{ours}, Python {sys.version.split()[0]}"
    return Result("Logging", how, rows, samples=samples, versions=version)


MEASUREMENT = Measurement("logging", 190, run)
