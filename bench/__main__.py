"""`python -m bench [--quick] [NAMES...]`: measure, keep, and write the page."""

import argparse
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, plot, processes, results
from bench.managers import available
from bench.page import page
from bench.registry import Measurement, all_measurements
from bench.session import BenchError, Session

_DOCS = Path(__file__).parent.parent / "docs"
_LEFT_SECONDS = 2.0


def main() -> int:
    measurements = all_measurements()
    arguments = _arguments([measurement.name for measurement in measurements])
    processes.become_subreaper()
    wanted = set(arguments.names)
    chosen = [m for m in measurements if m.name in wanted or not wanted]
    order = [measurement.name for measurement in measurements]
    failed = 0
    with ExitStack() as stack:
        session = Session(stack, arguments.quick)
        for measurement in chosen if not arguments.page else ():
            failed += not _measure(measurement, session, arguments.output, order)
        failed += _check_nothing_left()
    _write(arguments.output, order)
    return 1 if failed else 0


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small counts: does it work?")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing, write the page from what is kept"
    )
    parser.add_argument(
        "--output", type=Path, default=_DOCS, help="directory to write into (default: docs)"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; there are {names}")
    if arguments.quick and arguments.output == _DOCS:
        arguments.output = Path(__file__).parent / "results"  # docs keep what was measured well
    return arguments


def _measure(measurement: Measurement, session: Session, output: Path, order: list[str]) -> bool:
    """Run one measurement and keep what it found, beside what is kept of the others."""
    print(f"{measurement.name}:", file=sys.stderr, flush=True)
    begin, bystanders = time.monotonic(), machine.Bystanders()
    try:
        result = measurement.run(session)
    except BenchError as problem:
        print(f"bench: {measurement.name} could not be made: {problem}", file=sys.stderr)
        return False
    result.date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    result.machine = machine.describe()
    result.versions = result.versions or available.versions()
    result.seconds = time.monotonic() - begin
    result.bystanders = bystanders.part()
    result.is_quick = session.is_quick
    for row in result.rows:
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        words = (row.what, row.ours, row.theirs, row.ratio, row.bar, verdict)
        session.say(" | ".join(word for word in words if word))
    output.mkdir(parents=True, exist_ok=True)
    kept = results.load(output / "benchmarks.json")
    kept[measurement.name] = result
    results.save(output / "benchmarks.json", {n: kept[n] for n in order if n in kept})
    return True


def _check_nothing_left() -> int:
    left = processes.end_descendants(_LEFT_SECONDS)
    for command in left:
        print(f"bench: was left and had to be killed: {command}", file=sys.stderr)
    return len(left)


def _write(output: Path, order: list[str]) -> None:
    kept = results.load(output / "benchmarks.json")
    if not kept:
        return
    (output / "benchmarks.md").write_text(page(kept, order))
    if plot.is_available():
        plot.draw_all(kept, output / "img")
    else:
        print("bench: matplotlib is not installed, so no plots: pip install -e .[bench]")
    print(f"bench: {output / 'benchmarks.md'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
