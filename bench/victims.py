"""Who is in charge of a web server: how it is started, killed, and when somebody is back."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench import adoption, client, processes
from bench.managers.base import Manager, Order
from bench.managers.circus import Circus
from bench.managers.start_server import StartServer
from bench.managers.supervisor import Supervisor
from bench.program import Program
from bench.session import Session
from bench.webservers.base import Site, WebServer
from bench.webservers.gunicorn import Gunicorn
from bench.webservers.in_c import Bjoern, bjoern_order
from bench.webservers.sengu import Sengu
from bench.webservers.serverengine import ServerEngine
from bench.webservers.unicorn import Unicorn
from tests.ports import free_port

SERVER, SUPERVISOR = OURS = ("sengu's server", "sengu's supervisor")
KINDS: tuple[type[Program], ...] = (
    *(Sengu, Gunicorn, Unicorn, Supervisor, Circus, StartServer, ServerEngine, Bjoern),
)
RETURN_SECONDS = 20.0  # for those of whom a process is left that may start another
_LOOK_SECONDS = 0.001


class Running(NamedTuple):
    program: Any  # a Program, of the kind that its case knows
    port: int


class Return(NamedTuple):
    """Milliseconds from the kill until somebody was in charge, None for never. `event` is by the
    time of sengu's event.
    """

    in_charge: float | None
    event: float | None = None


class Case(NamedTuple):
    """Who is killed. `kill` waits for the return; only until the moment that it is told, if no
    process is left that could start another.
    """

    label: str
    launch: Callable[[Session], Running]
    kill: Callable[[Running, float], Return]
    is_here: bool = True


def all_cases() -> list[Case]:
    has_bjoern = Bjoern.version() is not None
    return [
        Case(SERVER, _serve(Sengu), _kill_sengu),
        Case(SUPERVISOR, _serve(Sengu), _kill_main),
        Case("gunicorn", _serve(Gunicorn), _kill_main, _is_here(Gunicorn)),
        Case("Unicorn", _serve(Unicorn), _kill_main, _is_here(Unicorn)),
        Case("supervisor", _manage(Supervisor), _kill_main, has_bjoern and _is_here(Supervisor)),
        Case("Circus", _manage(Circus), _kill_main, has_bjoern and _is_here(Circus)),
        Case("start_server", _start_worker, _kill_main, _is_here(StartServer)),
        Case("ServerEngine's server", _serve(ServerEngine), _kill_server, _is_here(ServerEngine)),
        Case("ServerEngine's supervisor", _serve(ServerEngine), _kill_main, _is_here(ServerEngine)),
    ]


def _serve(kind: type[WebServer]) -> Callable[[Session], Running]:
    def launch(session: Session) -> Running:
        server = kind(session.fresh_directory(), Site())
        return Running(server, server.port)

    return launch


def _manage(kind: type[Manager]) -> Callable[[Session], Running]:
    def launch(session: Session) -> Running:
        port = free_port()
        return Running(kind(session.fresh_directory(), bjoern_order(port)), port)

    return launch


def _start_worker(session: Session) -> Running:
    port = free_port()
    order = Order((session.program("http_worker"),), port=port)
    return Running(StartServer(session.fresh_directory(), order), port)


def _kill_sengu(running: Running, _until: float) -> Return:
    adopted = adoption.kill_server(running.program.control)
    return Return(adopted.answer, adopted.event)


def _kill_main(running: Running, until: float) -> Return:
    return _kill(running, running.program.pid, until)


def _kill_server(running: Running, _until: float) -> Return:
    until = time.monotonic() + RETURN_SECONDS
    return _kill(running, running.program.server_pid(), until)


def _kill(running: Running, pid: int, until: float) -> Return:
    below = processes.tree(pid)[1:]
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    processes.wait_gone([pid], RETURN_SECONDS)  # until then its children are below it
    while time.monotonic() < until:
        processes.reap(below)  # as init would: some wait until their child has been
        if _is_managed(running):
            return Return((time.monotonic() - begin) * 1000)
        time.sleep(_LOOK_SECONDS)
    return Return(None)


def _is_managed(running: Running) -> bool:
    """Whether one answers that is below the main process."""
    managed = processes.tree(running.program.pid)[1:]
    try:
        return bool(managed) and int(client.ask(running.port, "/pid")) in managed
    except OSError:  # nobody listens, or whoever did has died
        return False


def _is_here(kind: type[Program]) -> bool:
    return kind.version() is not None
