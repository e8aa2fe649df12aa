"""What `self.heartbeat()` costs a worker class, and lines of the command pipe."""

import subprocess
import sys
from pathlib import Path

from bench.program import distribution_version
from bench.registry import Measurement
from bench.results import Result, Row, significant, spread
from bench.session import Session

_PROGRAM = Path(__file__).parents[1] / "programs" / "working.py"
_BAR_NANOSECONDS = 1000.0

HOW = """\
`self.heartbeat()` in a loop of {calls}, without the loop's own cost: two stores into shared memory.
A line of the command pipe: written by the worker, read by a Python program, which answers it with a
byte before the next one is written, {lines} times. Medians of {rounds} rounds, each in a process of
its own, with the least and the greatest."""


def run(session: Session) -> Result:
    rounds, calls, lines = session.pick((11, 500_000, 20_000), (3, 50_000, 1_000))
    beats = [_measure("beat", calls) for _ in range(rounds)]
    rates = [lines / _measure("pipe", lines) for _ in range(rounds)]
    middle = sorted(beats)[rounds // 2]
    rows = [
        Row(
            "one heartbeat",
            spread(beats, "ns"),
            bar=f"at most {significant(_BAR_NANOSECONDS / 1000)} µs",
            reached=middle <= _BAR_NANOSECONDS,
        ),
        Row("lines of the command pipe, heard and answered", spread(rates, "a second")),
    ]
    return Result(
        "Heartbeat and command pipe of worker classes",
        HOW.format(calls=calls, lines=lines, rounds=rounds),
        rows,
        samples={"heartbeat, ns": beats, "lines a second": rates},
        versions=f"sengu {distribution_version('sengu')}, Python {sys.version.split()[0]}",
    )


def _measure(what: str, count: int) -> float:
    command = (sys.executable, str(_PROGRAM), what, str(count))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


MEASUREMENT = Measurement("heartbeat", 195, run)
