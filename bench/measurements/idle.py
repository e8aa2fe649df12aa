"""What the managing processes do while nothing happens: system calls and CPU time."""

import math
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from bench import processes
from bench.announcements import Announcements
from bench.managers.available import missing_notes, present
from bench.managers.base import Manager, Order
from bench.managers.sengu import Sengu
from bench.registry import Measurement
from bench.results import Result, Row, significant
from bench.session import Session, find_program

_WORKERS = 4
_ATTACH_SECONDS = 2.0  # attaching interrupts the call that a process waits in
_SUPERVISOR, _SERVER = _OURS = ("sengu's supervisor", "sengu's server")
# The server tells the supervisor every 2.5 s that it is not stuck: it winds up a timer, and waits.
_BEAT_SECONDS = 2.5
_CALLS_A_BEAT = 2

HOW = """\
All run at the same time, each with {workers} idle workers (start_server has one). CPU time is read
from `/proc/PID/task/*/schedstat` before and after {seconds} s. Then `strace -f` watches all
processes of each tree but the workers for {seconds} s; what it counts begins {attach} s
after it attached, since that interrupts a call once. sengu's supervisor does nothing; its server
winds up a timer every {beat:g} s, by which the supervisor knows that it is not stuck."""

# "1234 1700000000.123456 epoll_wait(4, ...": begun calls only, no resumption, signal or exit.
_CALL = re.compile(r"(?:\d+ +)?(\d+\.\d+) (\w+)\(")


def run(session: Session) -> Result:
    seconds = session.pick(10.0, 1.0)
    strace = find_program("strace")
    with ExitStack() as stack:
        managers: list[Manager] = []
        for kind in present():
            directory = session.fresh_directory()
            heard = stack.enter_context(Announcements(directory))
            workers = min(_WORKERS, kind.max_workers or _WORKERS)
            order = Order((session.program("announce"), heard.path), workers)
            managers.append(stack.enter_context(kind(directory, order)))
            heard.wait_many(workers)
        time.sleep(session.pick(3.0, 0.5))
        cpu = _cpu_milliseconds(managers, seconds)
        calls = _system_calls(session, strace, _watched(managers), seconds)
    how = HOW.format(
        workers=_WORKERS, seconds=f"{seconds:g}", attach=f"{_ATTACH_SECONDS:g}", beat=_BEAT_SECONDS
    )
    return _result(how, seconds, calls, cpu)


def _cpu_milliseconds(managers: list[Manager], seconds: float) -> dict[str, float]:
    pids = {manager.label: manager.managing() for manager in managers}
    before = {label: processes.on_cpu_seconds(members) for label, members in pids.items()}
    time.sleep(seconds)
    return {
        label: (processes.on_cpu_seconds(members) - before[label]) * 1000
        for label, members in pids.items()
    }


def _watched(managers: list[Manager]) -> dict[str, list[int]]:
    """Whose calls are counted together: each manager's, but ours by process."""
    found: dict[str, list[int]] = {}
    for manager in managers:
        if isinstance(manager, Sengu):
            found[_SUPERVISOR] = [manager.pid]
            found[_SERVER] = [pid for pid in manager.managing() if pid != manager.pid]
        else:
            found[manager.label] = manager.managing()
    return found


def _system_calls(
    session: Session, strace: str, watched: dict[str, list[int]], seconds: float
) -> dict[str, list[str]]:
    """The names of the calls that each began, in order."""
    tracers = []
    for label, pids in watched.items():
        trace = session.fresh_directory() / "trace"
        members = [f"--attach={pid}" for pid in pids]
        tracer = subprocess.Popen(
            [strace, "-f", "-ttt", "-s", "0", "-o", str(trace), *members],
            stderr=subprocess.DEVNULL,
        )
        tracers.append((label, tracer, trace))
    begin = time.time() + _ATTACH_SECONDS
    time.sleep(_ATTACH_SECONDS + seconds)
    for _label, tracer, _trace in tracers:
        tracer.send_signal(signal.SIGINT)  # detaches; what it traced goes on
        tracer.wait(10)
    return {
        label: _calls_between(trace, begin, begin + seconds) for label, _tracer, trace in tracers
    }


def _calls_between(trace: Path, begin: float, end: float) -> list[str]:
    matches = map(_CALL.match, trace.read_text(errors="replace").splitlines())
    return [match[2] for match in matches if match and begin <= float(match[1]) < end]


def _result(how: str, seconds: float, calls: dict[str, list[str]], cpu: dict[str, float]) -> Result:
    supervisor, server = len(calls[_SUPERVISOR]), len(calls[_SERVER])
    most = _CALLS_A_BEAT * math.ceil(seconds / _BEAT_SECONDS)
    what_calls, what_cpu = f"system calls in {seconds:g} s", f"CPU time in {seconds:g} s"
    rows = [
        Row(f"{what_calls}: the supervisor", str(supervisor), bar="none", reached=not supervisor),
        Row(
            f"{what_calls}: the server",
            str(server),
            bar=f"its beat: ≤ {most}",
            reached=server <= most,
        ),
        Row(
            what_cpu,
            _milliseconds(cpu["sengu"]),
            bar=f"≤ 0.5 % = {5 * seconds:g} ms",
            reached=_is_small(cpu, seconds),
        ),
    ]
    for label in [label for label in cpu if label != "sengu"]:
        rows.append(Row(what_calls, str(supervisor + server), f"{label}: {len(calls[label])}"))
        milliseconds = _milliseconds(cpu[label])
        rows.append(Row(what_cpu, _milliseconds(cpu["sengu"]), f"{label}: {milliseconds}"))
    notes = missing_notes()
    notes += [f"{who}, its calls: {', '.join(calls[who][:20])}" for who in _OURS if calls[who]]
    samples = {f"{label}, CPU ms": [value] for label, value in cpu.items()}
    samples |= {f"{label}, system calls": [len(names)] for label, names in calls.items()}
    return Result("Idle", how, rows, notes=notes, samples=samples)


def _is_small(cpu: dict[str, float], seconds: float) -> bool:
    return cpu["sengu"] <= 0.005 * seconds * 1000


def _milliseconds(value: float) -> str:
    return f"{significant(value)} ms"


MEASUREMENT = Measurement("idle", 40, run)
