"""From the start of a web server to its first answer, and to a hundred workers."""

import time

from bench.announcements import Announcements
from bench.compare import bar_chart, bar_row, peer_rows
from bench.registry import Measurement
from bench.results import Result
from bench.session import BenchError, Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.granian import Granian
from bench.webservers.gunicorn import Gunicorn, GunicornPreloaded
from bench.webservers.in_c import Bjoern
from bench.webservers.sengu import Sengu
from bench.webservers.unicorn import Unicorn
from bench.webservers.uvicorn import Uvicorn
from bench.webservers.uwsgi import Uwsgi

_KINDS: tuple[type[WebServer], ...] = (
    *(Sengu, Bjoern, Uwsgi, Gunicorn, Granian, Unicorn, Uvicorn),
)
_CROWDS: tuple[type[WebServer], ...] = (Sengu, GunicornPreloaded, Uwsgi)
_MOST_MILLISECONDS = 300.0
_REST_SECONDS = 0.3  # uWSGI hangs if it is told to stop while a worker of it still announces itself

HOW = """\
From just before the server is executed until a client that asks without pause is answered, with one
worker; {rounds} starts of each, in turns. Then {crowd_rounds} starts with {many} workers of those
that load an application before they fork: from the end of its import to the last worker that is
ready, by the application's own clock. The bar is held to what the server itself has seen, that is
to its last event `worker_ready`."""


class Crowds:
    """Milliseconds by label, a value for each round."""

    def __init__(self) -> None:
        self.from_import: dict[str, list[float]] = {}
        self.from_exec: dict[str, list[float]] = {}
        self.seen_by_server: list[float] = []

    def start(self, session: Session, kind: type[WebServer], many: int) -> None:
        directory = session.fresh_directory()
        with Announcements(directory) as heard:
            site = Site(workers=many, announce=heard.path)
            with kind(directory, site) as server:
                imported, *ready = heard.wait_many(1 + many)
                last = max(worker.at for worker in ready)
                if imported.pid in {worker.pid for worker in ready}:
                    raise BenchError(f"{kind.label} has imported the application in a worker")
                begin = server.started_at
                self.from_import.setdefault(kind.label, []).append((last - imported.at) * 1000)
                self.from_exec.setdefault(kind.label, []).append((last - begin) * 1000)
                time.sleep(_REST_SECONDS)
                if isinstance(server, Sengu):
                    seen = _all_ready_at(server, many) - imported.at
                    self.seen_by_server.append(seen * 1000)


def _all_ready_at(server: Sengu, many: int) -> float:
    """By its events (monotonic seconds)."""
    while True:
        events = server.control.events()
        ready = [event["time"] for event in events if event["type"] == "worker_ready"]
        if len(ready) == many:
            return float(ready[-1]) - time.time() + time.monotonic()


def run(session: Session) -> Result:
    rounds, crowd_rounds = session.pick((7, 3), (1, 1))
    many = session.pick(100, 10)
    first: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind in present(*_KINDS):
            with kind(session.fresh_directory(), Site()) as server:
                milliseconds = (server.wait_answer() - server.started_at) * 1000
                first.setdefault(kind.label, []).append(milliseconds)
    crowds = Crowds()
    for _ in range(crowd_rounds):
        for kind in present(*_CROWDS):
            crowds.start(session, kind, many)
    how = HOW.format(rounds=rounds, crowd_rounds=crowd_rounds, many=many)
    return _result(how, first, crowds, many)


def _result(how: str, first: dict[str, list[float]], crowds: Crowds, many: int) -> Result:
    what = f"application imported → {many} workers ready"
    samples = {f"{label}, ms to the first answer": values for label, values in first.items()}
    for label, values in crowds.from_import.items():
        samples[f"{label}, ms from the import to {many} workers"] = values
    kinds: tuple[type[WebServer], ...] = (*_KINDS, GunicornPreloaded)
    return Result(
        title="Start of a web server",
        how=how,
        rows=[
            bar_row(
                f"{what}, as the server sees it", crowds.seen_by_server, "ms", _MOST_MILLISECONDS
            ),
            *peer_rows(what, crowds.from_import, "ms", {}, {}),
            *peer_rows(f"exec → {many} workers ready", crowds.from_exec, "ms", {}, {}),
            *peer_rows("exec → first answer", first, "ms", {}, {}),
        ],
        charts=[bar_chart("http-start", "From exec to the first answer", "ms", first)],
        notes=missing_notes(*kinds),
        samples=samples,
        versions=versions(*kinds),
    )


MEASUREMENT = Measurement("http-start", 150, run)
