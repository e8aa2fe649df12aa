"""One program under one load with deploys meanwhile: what failed. For programs of `binders`."""

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bench import client, processes
from bench.binders import Binder, User, serve
from bench.deployer import Deployer
from bench.load import Ab, AbortedError, Load, Wrk
from bench.managers.deploying import Deploying
from bench.managers.start_server import StartServer
from bench.network import own_network
from bench.results import significant
from bench.session import BenchError, Session
from bench.webservers.sengu import Sengu as Serve
from tests.ports import free_port

DEPLOY_SECONDS = 2.0
SERVE = "sengu serve"
_ANSWER_SECONDS = 2.0
_SETTLE_SECONDS = 20.0  # start_server may not have seen a HUP: see its `nudge`
_REASON = re.compile(r"^(?:apr_\w+(?:\(\))?: )?(.*?)(?: \(\d+\))?$", re.MULTILINE)


class Task(NamedTuple):
    """What is asked. `is_kept`: connections are, between requests."""

    generator: Ab | Wrk
    is_kept: bool

    @property
    def title(self) -> str:
        return self.generator.title


class Amount(NamedTuple):
    """How much: so many seconds of wrk, and requests of ab; None is the same seconds of ab."""

    seconds: int
    requests: int | None


class Outcome(NamedTuple):
    """What became of a load. `load` is None if ab gave up, which `aborted` tells."""

    load: Load | None
    deploys: int
    aborted: str = ""

    def tell(self) -> str:
        if self.load is None:
            return f"{self.aborted}; {self._deploys()}"
        slowest = significant(self.load.slowest_milliseconds)
        failed = f"{self.load.failed} of {self.load.requests}"
        return f"{failed}; {self._deploys()}; slowest {slowest} ms"

    def _deploys(self) -> str:
        return f"{self.deploys} deploy{'' if self.deploys == 1 else 's'}"


class Trial(NamedTuple):
    """`user` is as whom sengu ran, empty for start_server. `technique` is what led connections."""

    binder: str
    task: Task
    user: str
    outcome: Outcome
    technique: str = ""

    @property
    def keeper(self) -> str:
        return f"sengu as {self.user}" if self.user else "start_server"


class Field:
    """Where trials are made. Each program has a network of its own, if it can be made."""

    def __init__(self, session: Session, amount: Amount) -> None:
        self._session = session
        self._amount = amount
        self.has_networks = True

    def under_start_server(self, binder: Binder, tasks: Iterable[Task]) -> Iterator[Trial]:
        with own_network() as is_own:
            self.has_networks &= is_own
            port = free_port()
            with binder.under_start_server(self._session, port) as keeper:
                keeper.wait_generation(1)
                for task in tasks:
                    outcome = self._try(f"{binder.label} under start_server", task, keeper, port)
                    yield Trial(binder.label, task, "", outcome)

    def under_sengu(self, binder: Binder, tasks: Iterable[Task], user: User) -> Iterator[Trial]:
        with own_network() as is_own:
            self.has_networks &= is_own
            port = free_port()
            with binder.under_sengu(self._session, port, user) as keeper:
                keeper.wait_generation(1)
                for task in tasks:
                    what = f"{binder.label} under sengu as {user.label}"
                    outcome = self._try(what, task, keeper, port)
                    (passage,) = keeper.control.call("GET", "/v1/status")["passages"]
                    yield Trial(binder.label, task, user.label, outcome, passage["technique"])

    def serve(self, tasks: Iterable[Task], user: User) -> Iterator[Trial]:
        with own_network() as is_own:
            self.has_networks &= is_own
            with serve(self._session, user) as server:
                server.wait_answer()
                for task in tasks:
                    outcome = self._try(f"{SERVE} as {user.label}", task, server, server.port)
                    yield Trial(SERVE, task, user.label, outcome, "--reuseport")

    def _try(self, what: str, task: Task, keeper: Deploying | Serve, port: int) -> Outcome:
        self._session.say(f"{what}, {task.title}")
        client.first_answer(port, "/", time.monotonic() + _ANSWER_SECONDS)
        generation = max(keeper.generations()) if isinstance(keeper, Deploying) else 0
        load, aborted = None, ""
        with Deployer(keeper.request_deploy, DEPLOY_SECONDS) as deployer:
            try:
                load = self._ask(task.generator, port)
            except AbortedError as problem:
                aborted = f"aborted after {problem.completed} ({_reason(problem.words)})"
        keeper.check_alive()
        if isinstance(keeper, Deploying):
            _settle(keeper, generation + deployer.count)
        return Outcome(load, deployer.count, aborted)

    def _ask(self, generator: Ab | Wrk, port: int) -> Load:
        directory = self._session.fresh_directory()
        if isinstance(generator, Ab) and self._amount.requests is not None:
            return generator.run(port, self._amount.requests, directory)
        return generator.run_for(port, self._amount.seconds, directory)


def _settle(keeper: Deploying, generation: int) -> None:
    """Until the last deploy is over. start_server tells old workers to stop in each deploy again;
    a granian that is told twice may hang, and start_server would wait for it at its own end."""
    try:
        keeper.wait_generation(generation, _SETTLE_SECONDS)
    except BenchError:
        keeper.check_alive()
        if isinstance(keeper, StartServer):
            for old in keeper.old_pids() & set(processes.children(keeper.pid)):
                for pid in processes.tree(old):
                    os.kill(pid, signal.SIGKILL)


def _reason(words: str) -> str:
    """The last of ab's words, without the function and the number in them."""
    return str(_REASON.findall(words)[-1]).lower()
