"""A thousand workers: until they are ready, what they cost while idle, and their adoption."""

import time
from typing import NamedTuple

from bench import adoption, processes
from bench.announcements import Announcements
from bench.compare import bar_chart, bar_row
from bench.registry import Measurement
from bench.results import Result, Row, spread
from bench.session import BenchError, Session
from bench.webservers.available import versions
from bench.webservers.base import Site
from bench.webservers.sengu import Sengu

_MOST_IDLE_PERCENT = 0.5
_MOST_SUPERVISOR_MEGABYTES = 8.0
_MOST_SERVER_MEGABYTES = 16.0
# In seconds. A hundred are held to what holds for any start and any loss of a server.
_MOST_UNTIL_READY = (3.0, 0.3)
_MOST_UNTIL_ADOPTED = (2.0, 0.5)
_START_SECONDS = 3.0
_MOST_IDLE_PERCENT = 0.5
_MOST_SUPERVISOR_MEGABYTES = 8.0
_MOST_SERVER_MEGABYTES = 16.0
# A hundred are not held to the figure for a thousand, but to that for any server that is lost.
_MOST_ADOPTION_SECONDS = {1000: 2.0, 100: 0.5}
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.05

HOW = """\
`sengu serve` of a hello, with {many} workers and with {few}; {rounds} fresh starts of each, in
turns. Ready is by the last event `worker_ready` of the server; the clock runs from the end of the
application's import, by its own word, and from just before the exec. After {rest:g} s of rest, CPU
time of the whole tree is read before and after {seconds:g} s (`/proc/PID/task/*/schedstat`), as a
part of one core; then unique memory (`Private_*` of `/proc/PID/smaps_rollup`, MB are millions of
bytes). Then the server is killed with -9; it has been replaced when the event `server_adopted` has
happened, and the control socket answers when it has told of that."""


class Crowd(NamedTuple):
    """One start: seconds, percent of a core, megabytes, and the adoption in milliseconds."""

    from_import: float
    from_exec: float
    idle: float
    supervisor: float
    server: float
    adopted: adoption.Adoption


def run(session: Session) -> Result:
    rounds, seconds, rest = session.pick((3, 10.0, 5.0), (1, 1.0, 0.5))
    sizes = session.pick((1000, 100), (30, 10))
    found: dict[int, list[Crowd]] = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            session.say(f"round {number + 1} of {rounds}, {size} workers")
            found[size].append(_measure(session, size, rest, seconds))
    many, few = sizes
    how = HOW.format(many=many, few=few, rounds=rounds, rest=rest, seconds=seconds)
    return _result(how, found)


def _measure(session: Session, size: int, rest: float, seconds: float) -> Crowd:
    directory = session.fresh_directory()
    with Announcements(directory) as heard:
        site = Site(workers=size, announce=heard.path)
        with Sengu(directory, site) as server:
            imported, *_ready = heard.wait_many(1 + size, _START_SECONDS)
            ready_at = _all_ready_at(server, size)
            time.sleep(rest)
            before = server.cpu_seconds()
            time.sleep(seconds)
            idle = (server.cpu_seconds() - before) / seconds * 100
            memory = _megabytes(server.pid), _megabytes(server.control.server_pid())
            adopted = adoption.kill_server(server.control)
            _check_living(server, size)
            return Crowd(
                ready_at - imported.at, ready_at - server.started_at, idle, *memory, adopted
            )


def _all_ready_at(server: Sengu, size: int) -> float:
    """By the last event of a worker (monotonic seconds)."""
    while _ready(server) < size:
        time.sleep(_LOOK_SECONDS)  # its answers are long, and it has something else to do
    events = server.control.events()
    last = max(event["time"] for event in events if event["type"] == "worker_ready")
    return float(last) - time.time() + time.monotonic()


def _ready(server: Sengu) -> int:
    workers = server.control.call("GET", "/v1/status")["workers"]
    return sum(worker["state"] == "ready" for worker in workers)


def _check_living(server: Sengu, size: int) -> None:
    adopted = server.control.call("GET", "/v1/status")["adopted"]
    if adopted["workers"] != size:
        raise BenchError(f"of {size} workers {adopted['workers']} were adopted: {adopted}")


def _megabytes(pid: int) -> float:
    return processes.unique_bytes([pid]) / 1e6


def _result(how: str, found: dict[int, list[Crowd]]) -> Result:
    rows: list[Row] = []
    bars = zip(_MOST_UNTIL_READY, _MOST_UNTIL_ADOPTED, strict=True)
    for (size, crowds), most in zip(found.items(), bars, strict=True):
        rows += _rows(f"{size} workers", crowds, *most)
    chart = bar_chart(
        "many",
        "Server killed → its workers adopted",
        "ms, median and range",
        {
            f"sengu, {size} workers": [crowd.adopted.event for crowd in crowds]
            for size, crowds in found.items()
        },
    )
    return Result(
        title="A thousand workers",
        how=how,
        rows=rows,
        charts=[chart],
        samples=_samples(found),
        versions=versions(Sengu),
    )


def _rows(who: str, crowds: list[Crowd], most_ready: float, most_adopted: float) -> list[Row]:
    from_import = [crowd.from_import for crowd in crowds]
    from_exec = [crowd.from_exec for crowd in crowds]
    idle = [crowd.idle for crowd in crowds]
    supervisor = [crowd.supervisor for crowd in crowds]
    server = [crowd.server for crowd in crowds]
    adopted = [crowd.adopted.event / 1000 for crowd in crowds]
    answered = [crowd.adopted.answer / 1000 for crowd in crowds]
    return [
        bar_row(f"{who}: application imported → all ready", from_import, "s", most_ready),
        Row(f"{who}: exec → all ready", spread(from_exec, "s")),
        bar_row(f"{who}: CPU of all while idle, of a core", idle, "%", _MOST_IDLE_PERCENT),
        bar_row(f"{who}: the supervisor", supervisor, "MB", _MOST_SUPERVISOR_MEGABYTES),
        bar_row(f"{who}: the server", server, "MB", _MOST_SERVER_MEGABYTES),
        bar_row(f"{who}: server killed → adopted", adopted, "s", most_adopted),
        Row(f"{who}: server killed → control socket answers", spread(answered, "s")),
    ]


def _samples(found: dict[int, list[Crowd]]) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for size, crowds in found.items():
        samples[f"{size} workers, s from the import"] = [crowd.from_import for crowd in crowds]
        samples[f"{size} workers, s from the exec"] = [crowd.from_exec for crowd in crowds]
        samples[f"{size} workers, idle CPU %"] = [crowd.idle for crowd in crowds]
        samples[f"{size} workers, supervisor MB"] = [crowd.supervisor for crowd in crowds]
        samples[f"{size} workers, server MB"] = [crowd.server for crowd in crowds]
        samples[f"{size} workers, ms to the event"] = [crowd.adopted.event for crowd in crowds]
        samples[f"{size} workers, ms to the answer"] = [crowd.adopted.answer for crowd in crowds]
    return samples


MEASUREMENT = Measurement("many", 180, run)
