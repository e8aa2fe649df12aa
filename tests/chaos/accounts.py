"""What must be so when all has settled, whatever was done before. Each finding is one line."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.chaos.load import Failure, Load
from tests.chaos.orders import Chronicle, ask
from tests.chaos.plan import Order, Role
from tests.chaos.tree import below, holdings, of_role
from tests.support import Instance
from tests.system.puppets import children

_SETTLE_SECONDS = 60.0
_LOOK_SECONDS = 0.02


class Death(NamedTuple):
    """A process that we have killed; `ports` are clients' ends of what it had in hand."""

    pid: int
    role: Role
    at: float
    ports: frozenset[int]

    def explains(self, failure: Failure) -> bool:
        was_there = failure.opened_at <= self.at <= failure.failed_at
        return was_there and failure.port in self.ports


class Ledger:
    """What was done, and what is to be expected of it."""

    def __init__(self) -> None:
        self.deaths: list[Death] = []
        self.orders: Counter[Order] = Counter()
        self.freezes = 0
        self.upgrades = 0

    @property
    def deploys(self) -> int:
        return 1 + self.orders[Order.HUP] + self.orders[Order.RELOAD]


def unexplained(failures: Iterable[Failure], deaths: Iterable[Death]) -> list[str]:
    """Failures of requests that nobody had in hand who was killed."""
    by_port: dict[int, list[Death]] = {}
    for death in deaths:
        for port in death.ports:
            by_port.setdefault(port, []).append(death)
    return [
        f"nobody was killed who had this in hand: {failure}"
        for failure in failures
        if not any(death.explains(failure) for death in by_port.get(failure.port, ()))
    ]


def settle(
    instance: Instance, workers: int, chronicle: Chronicle, ledger: Ledger
) -> dict[str, Any]:
    """Wait until nothing is under way and all wanted workers are ready; the status then.

    Raises AssertionError.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        status: dict[str, Any] = ask(instance, "GET", "/v1/status").body
        lacks = [*_unsettled(status, workers), *_superfluous(instance.pid, status)]
        if not lacks:
            chronicle.wait_for(status["last_event"])
            lacks = list(_unconcluded(chronicle, ledger))
        if not lacks:
            return status
        if time.monotonic() > deadline:
            raise AssertionError(f"not settled within {_SETTLE_SECONDS:g} s: {lacks}; {status}")
        chronicle.wait_for_more(_LOOK_SECONDS)


def _unsettled(status: dict[str, Any], workers: int) -> Iterator[str]:
    if status["state"] != "serving":
        yield f"it is {status['state']}"
    if status["workers_wanted"] != workers:
        yield f"{status['workers_wanted']} workers are wanted, not {workers}"
    states = [worker["state"] for worker in status["workers"]]
    if states != ["ready"] * workers:
        yield f"workers are {states}"
    generations = {worker["generation"] for worker in status["workers"]}
    if generations != {status["generation"]}:
        yield f"workers are of {generations}, generation {status['generation']} serves"


def _superfluous(main_pid: int, status: dict[str, Any]) -> Iterator[str]:
    """Those who end need a moment, the fork server of a generation that is gone for one."""
    workers = {worker["pid"] for worker in status["workers"]}
    servers = {process.pid for process in of_role(main_pid, Role.SERVER)}
    fork_servers = {process.pid for process in of_role(main_pid, Role.FORK_SERVER)}
    if servers != {status["server_pid"]}:
        yield f"servers are {servers}, {status['server_pid']} answers"
    if len(fork_servers) > 1:
        yield f"fork servers are {fork_servers}"
    for process in below(main_pid):
        if process.pid not in workers | servers | fork_servers:
            yield f"one too many: {process}"
    if zombies := children(main_pid) - workers - servers - fork_servers:
        yield f"not reaped: {zombies}"


def _unconcluded(chronicle: Chronicle, ledger: Ledger) -> Iterator[str]:
    for kind, expected in (
        ("deploy_requested", ledger.deploys),
        ("deploy_concluded", ledger.deploys),
        ("upgrade_requested", ledger.upgrades),
    ):
        if chronicle.count(kind) != expected:
            yield f"{chronicle.count(kind)} times {kind}, not {expected}"
    # Those asked for while one was going on end with it.
    upgrades = [e["type"] for e in chronicle.events if e["type"].startswith("upgrade")]
    if upgrades[-1:] == ["upgrade_requested"]:
        yield "the upgrade is not over"


def findings(instance: Instance, status: dict[str, Any], chronicle: Chronicle) -> Iterator[str]:
    """What is wrong with a service that has settled."""
    if status["pid"] != instance.pid:
        yield f"the main pid is {status['pid']}, and was {instance.pid}"
    succeeded = [
        event["generation"]
        for event in chronicle.events
        if event["type"] == "deploy_concluded" and event["outcome"] == "succeeded"
    ]
    if status["generation"] != max(succeeded):
        yield f"generation {status['generation']} serves, {max(succeeded)} was deployed last"
    slots = sorted(worker["slot"] for worker in status["workers"])
    if slots != list(range(len(slots))):
        yield f"workers are in slots {slots}"
    yield from chronicle.problems


def load_findings(load: Load, ledger: Ledger) -> Iterator[str]:
    yield from load.wrong
    yield from unexplained(list(load.failures), ledger.deaths)


class Holdings(NamedTuple):
    """Descriptors by kind."""

    supervisor: Counter[str]
    server: Counter[str]

    @classmethod
    def of(cls, main_pid: int) -> "Holdings":
        (server,) = of_role(main_pid, Role.SERVER)
        return cls(holdings(main_pid), holdings(server.pid))

    def compare(self, before: "Holdings") -> Iterator[str]:
        """Against an instance that has done nothing, of the same shape."""
        for name in self._fields:
            now, then = getattr(self, name), getattr(before, name)
            if now != then:
                yield f"the {name} has {dict(now - then)} more, {dict(then - now)} less"
