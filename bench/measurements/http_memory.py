"""Memory of a web server's processes, and of a worker over a million requests."""

import time

from bench import processes
from bench.compare import bar_chart, bar_row, peer_rows
from bench.load import Ab
from bench.registry import Measurement
from bench.results import Chart, Result, Row, Series, significant
from bench.session import Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.gunicorn import GunicornPreloaded
from bench.webservers.sengu import Sengu
from bench.webservers.unicorn import Unicorn

_KINDS: tuple[type[WebServer], ...] = (Sengu, GunicornPreloaded, Unicorn)
_LOAD = Ab(connections=16, keeps_alive=True)
_WARM_REQUESTS = 1000
_MOST_WORKER_MEGABYTES = 2.5
_MOST_SUPERVISOR_MEGABYTES = 8.0
_MOST_SERVER_MEGABYTES = 16.0
_MOST_GROWTH = 0.02

HOW = """\
Unique memory (USS: `Private_*` of `/proc/PID/smaps_rollup`) of a hello with one worker after {warm}
requests; {rounds} fresh starts of each, in turns. All three load the application before they fork.
Then one worker of sengu answers {many} requests (`{load}`), and is read on the way. MB are
millions of bytes."""


class Footprints:
    """Megabytes of unique memory by label, a value for each round."""

    def __init__(self) -> None:
        self.worker: dict[str, list[float]] = {}
        self.others: dict[str, list[float]] = {}
        self.supervisor: list[float] = []  # these three are sengu's
        self.server: list[float] = []
        self.fork_server: list[float] = []

    def take(self, server: WebServer) -> None:
        worker = server.worker_pid()
        others = [pid for pid in processes.tree(server.pid) if pid != worker]
        self.worker.setdefault(server.label, []).append(_megabytes([worker]))
        self.others.setdefault(server.label, []).append(_megabytes(others))
        if isinstance(server, Sengu):
            managing = (server.pid, server.control.server_pid())
            self.supervisor.append(_megabytes([managing[0]]))
            self.server.append(_megabytes([managing[1]]))
            self.fork_server.append(_megabytes([pid for pid in others if pid not in managing]))


def run(session: Session) -> Result:
    rounds = session.pick(3, 1)
    many = session.pick(1_000_000, 20_000)
    found = Footprints()
    for _ in range(rounds):
        for kind in present(*_KINDS):
            with kind(session.fresh_directory(), Site()) as server:
                server.wait_answer()
                _LOAD.run(server.port, _WARM_REQUESTS, server.directory)
                time.sleep(session.pick(1.0, 0.1))
                found.take(server)
    growth = _growth(session, many)
    how = HOW.format(
        **{"warm": _WARM_REQUESTS, "rounds": rounds, "load": _LOAD.title},
        many=f"{many:,}".replace(",", " "),
    )
    return _result(how, found, growth)


def _growth(session: Session, many: int) -> dict[int, float]:
    """Megabytes of one worker by the requests that it has answered."""
    marks = [many // 1000, many // 100, *(many * tenth // 10 for tenth in range(1, 11))]
    found: dict[int, float] = {}
    done = 0
    with Sengu(session.fresh_directory(), Site()) as server:
        server.wait_answer()
        worker = server.worker_pid()
        for mark in marks:
            session.say(f"{done} of {many} requests")
            _LOAD.run(server.port, mark - done, server.directory)
            done = mark
            found[done] = _megabytes([worker])
    return found


def _megabytes(pids: list[int]) -> float:
    return processes.unique_bytes(pids) / 1e6


def _result(how: str, found: Footprints, growth: dict[int, float]) -> Result:
    mine = found.worker["sengu"]
    rows = [
        bar_row("a forked worker", mine, "MB", _MOST_WORKER_MEGABYTES),
        bar_row("the supervisor", found.supervisor, "MB", _MOST_SUPERVISOR_MEGABYTES),
        bar_row("the server", found.server, "MB", _MOST_SERVER_MEGABYTES),
        *peer_rows("the fork server", {"sengu": found.fork_server}, "MB", {}, {}),
        *peer_rows("a forked worker", found.worker, "MB", {}, {}),
        *peer_rows("all but the worker", found.others, "MB", {}, {}),
        _growth_row(growth),
    ]
    samples = {f"{label}, worker, MB": values for label, values in found.worker.items()}
    samples |= {f"{label}, all but the worker, MB": v for label, v in found.others.items()}
    samples |= {"sengu, worker, MB on the way": list(growth.values())}
    return Result(
        title="Memory of a web server",
        how=how,
        rows=rows,
        charts=[
            bar_chart("http-memory", "Unique memory of a worker", "MB", found.worker),
            _growth_chart(growth),
        ],
        notes=missing_notes(*_KINDS),
        samples=samples,
        versions=versions(*_KINDS),
    )


def _growth_row(growth: dict[int, float]) -> Row:
    """Flat from a tenth of the way on: until then a worker copies pages that it writes to."""
    counts = list(growth)
    read = [*counts[:3], counts[-1]]
    early, last = growth[read[-2]], growth[read[-1]]
    values = " → ".join(significant(growth[count]) for count in read)
    return Row(
        f"a worker after {' → '.join(map(str, read))} requests",
        f"{values} MB ({(last / early - 1) * 100:+.1f} %)",
        bar=f"growth from {read[-2]} on ≤ {_MOST_GROWTH:.0%}",
        reached=last <= early * (1 + _MOST_GROWTH),
    )


def _growth_chart(growth: dict[int, float]) -> Chart:
    series = Series("sengu", list(growth.values()), [float(count) for count in growth])
    title = "Unique memory of a worker"
    return Chart("http-memory-growth", "lines", title, "requests", "MB", [series])


MEASUREMENT = Measurement("http-memory", 140, run)
