"""The one worker of a web server is killed with -9: how long until its replacement answers?"""

import os
import random
import signal
import time
from contextlib import ExitStack

from bench import client
from bench.compare import bar_chart, bar_row, peer_rows
from bench.control import Control
from bench.managers.circus import Circus
from bench.managers.supervisor import Supervisor
from bench.program import Program
from bench.registry import Measurement
from bench.results import Result
from bench.session import BenchError, Session
from bench.webservers.available import missing_notes, present, versions
from bench.webservers.base import Site, WebServer
from bench.webservers.gunicorn import Gunicorn
from bench.webservers.in_c import Bjoern, bjoern_order
from bench.webservers.sengu import Sengu
from bench.webservers.unicorn import Unicorn
from tests.ports import free_port

_MOST_MILLISECONDS = 15.0
_SERVERS: tuple[type[WebServer], ...] = (Sengu, Gunicorn, Unicorn)
_MANAGERS = (Supervisor, Circus)
_BARS = {"supervisor": 1 / 20, "Circus": 1 / 20}
# Circus looks for the dead at intervals: kills are spread evenly over them, as in life.
_CHECK_SECONDS = {"Circus": 5.0}
_ANSWER_SECONDS = 30.0

HOW = """\
Each serves the same hello with one worker and without load; supervisor (`startsecs=0`) and Circus
run bjoern. The clock runs from just before `kill -9` of the worker until a client that asks without
pause has the answer of another process; for sengu also until the event `worker_ready`. {count}
kills of ours, gunicorn's and Unicorn's workers, {manager_count} of the others, in turns. sengu
starts the replacement of a worker at once, but backs off when it dies again and again; so that no
back-off is measured, it deploys between two kills. supervisor starts a program anew at its next
tick; Circus looks every 5 s, so the moment of the kill is spread evenly over that time."""


class Target:
    """A running program, and the times until its worker was replaced."""

    def __init__(self, label: str, program: Program, port: int, control: Control | None) -> None:
        self.label = label
        self.answered: list[float] = []
        self.ready: list[float] = []
        self._program = program
        self._port = port
        self._control = control
        self._wait_answer()

    def kill(self, check_seconds: float) -> None:
        if self._control:
            self._control.deploy()
        time.sleep(random.uniform(0.05, min(_CHECK_SECONDS.get(self.label, 0.1), check_seconds)))
        victim = self._wait_answer()
        last_event = self._control.events()[-1]["id"] if self._control else 0
        killed_on, begin = time.time(), time.monotonic()
        os.kill(victim, signal.SIGKILL)
        successor = self._wait_answer()
        while successor == victim:  # it had accepted, and the kernel had not yet ended it
            successor = self._wait_answer()
        self.answered.append((time.monotonic() - begin) * 1000)
        if self._control:
            self.ready.append(_ready_after(self._control, last_event, killed_on))

    def _wait_answer(self) -> int:
        """The pid of whoever answers."""
        try:
            answer = client.first_answer(self._port, "/pid", time.monotonic() + _ANSWER_SECONDS)
        except client.NoAnswerError:
            self._program.check_alive()
            raise
        return int(answer)


def _ready_after(control: Control, last_event: int, begin: float) -> float:
    """Milliseconds from `begin` (wall clock) to the first worker that became ready since.

    The worker may answer a little before the server has read that it is ready.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        for event in control.events(last_event):
            if event["type"] == "worker_ready":
                return float(event["time"] - begin) * 1000
    raise BenchError("a worker of sengu answers that has not become ready")


def run(session: Session) -> Result:
    count, manager_count = session.pick((30, 15), (3, 1))
    with ExitStack() as stack:
        targets = [_start_server(session, stack, kind) for kind in present(*_SERVERS)]
        if present(Bjoern):
            managers = [kind for kind in _MANAGERS if kind.version() is not None]
            targets += [_start_manager(session, stack, kind) for kind in managers]
        time.sleep(session.pick(2.0, 0.1))  # let them come to rest after the start
        every = count // manager_count
        for number in range(count):
            for target in targets:
                if target.label not in _BARS or number % every == 0:
                    target.kill(session.pick(10.0, 0.1))
            if number % 10 == 0:
                session.say(f"{number} of {count} kills")
    return _result(HOW.format(count=count, manager_count=manager_count), targets)


def _start_server(session: Session, stack: ExitStack, kind: type[WebServer]) -> Target:
    server = stack.enter_context(kind(session.fresh_directory(), Site()))
    control = server.control if isinstance(server, Sengu) else None
    return Target(kind.label, server, server.port, control)


def _start_manager(
    session: Session, stack: ExitStack, kind: type[Supervisor] | type[Circus]
) -> Target:
    port = free_port()
    manager = stack.enter_context(kind(session.fresh_directory(), bjoern_order(port)))
    return Target(kind.label, manager, port, None)


def _result(how: str, targets: list[Target]) -> Result:
    found = {target.label: target.answered for target in targets}
    ready = targets[0].ready
    what = "killed → replacement answers"
    missing = missing_notes(*_SERVERS, Bjoern)
    missing += [f"{k.label} is not installed here." for k in _MANAGERS if k.version() is None]
    chart = bar_chart(
        "http-replace",
        "Worker killed → replacement answers",
        "ms, median and range, logarithmic",
        found,
        is_logarithmic=True,
    )
    samples = {f"{label}, ms to the answer": values for label, values in found.items()}
    samples["sengu, ms to ready"] = ready
    return Result(
        title="A worker of a web server is killed",
        how=how,
        rows=[
            bar_row("killed → replacement ready", ready, "ms", _MOST_MILLISECONDS),
            *peer_rows(what, found, "ms", _BARS, {}),
        ],
        charts=[chart],
        notes=missing,
        samples=samples,
        versions=versions(*_SERVERS, Bjoern),
    )


MEASUREMENT = Measurement("http-replace", 130, run)
