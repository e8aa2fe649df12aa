"""The running service, as the control API and the signals see it: ask, and be told.

Requests become facts; answers are read off what is observed.
"""

from collections.abc import Callable, Iterable

import msgspec

import sengu
from sengu.control import api
from sengu.control.routes import Refused
from sengu.model import events as ev
from sengu.model.observed import Observed, Phase, Worker
from sengu.posix import clock
from sengu.server.chronicle import Chronicle
from sengu.server.core import Core, Turn
from sengu.server.crew import Crew
from sengu.server.dumps import Dumps
from sengu.server.past import Past, outcome_of
from sengu.server.stage import Stage
from sengu.wire.scoreboard import Line

_UNCONFIGURED = (
    "this service has no configuration that could be read anew; it was started without --config, "
    "which `sengu work` has"
)

Tell = Callable[[api.ReloadOutcome], None]


class Identity(msgspec.Struct, frozen=True):
    """Pids of the supervisor, which is the instance's, and of the server that answers; where the
    log goes, as `Files.log` has it.
    """

    main_pid: int
    pid: int
    log: str = ""


class RunningService:
    """Implements `control.routes.Service`."""

    def __init__(
        self, core: Core, crew: Crew, stage: Stage, chronicle: Chronicle, instance: Identity
    ) -> None:
        self._core = core
        self._crew = crew
        self._stage = stage
        self._chronicle = chronicle
        self._instance = instance
        self._waiting: dict[int, list[Tell]] = {}
        self._concluded: list[api.ReloadOutcome] = []
        self._inquirers: dict[int, list[Callable[[api.ConfigureOutcome], None]]] = {}
        self.past = Past()
        self.dumps: Dumps | None = None

    def reload(self, immediate: bool, by: str, token: str) -> api.ReloadAccepted:
        """Ask for a deploy. Its number is known at once: the next one. Raises Refused."""
        known = self.past.deploys.get(token)
        if known is not None:
            return known
        if self._core.observed.stop is not None:
            raise Refused(409, "the service is being stopped; nothing can be deployed any more")
        last_event = self._chronicle.last_id
        self._core.take(ev.DeployRequested(by, token, immediate))
        return api.ReloadAccepted(self._core.observed.last_generation, last_event)

    def upgrade(self, by: str, token: str) -> api.UpgradeAccepted:
        """Ask for server and supervisor to be replaced by what is installed. Raises Refused."""
        known = self.past.upgrades.get(token)
        if known is not None:
            return known
        if self._core.observed.stop is not None:
            raise Refused(409, "the service is being stopped; nothing is upgraded any more")
        if self.past.upgrading:
            raise Refused(409, "an upgrade is going on already; sengu events tells how it ends")
        last_event = self._chronicle.last_id
        self._core.take(ev.UpgradeRequested(by, token))
        return api.UpgradeAccepted(last_event)

    def dump(self, tell: Callable[[api.Dump], None]) -> None:
        """Have all processes write down where they are."""
        assert self.dumps is not None  # it is there before anybody can ask
        self.dumps.ask(tell)

    def configure(self, by: str, token: str) -> api.ConfigureAccepted:
        """Ask for the configuration to be read anew. Raises Refused."""
        known = self.past.inquiries.get(token)
        if known is not None:
            return known
        application = self._core.spec.application
        if application is None or not application.is_configured:
            raise Refused(409, _UNCONFIGURED)
        if self._core.observed.stop is not None:
            raise Refused(409, "the service is being stopped; nothing is configured any more")
        last_event = self._chronicle.last_id
        self._core.take(ev.ConfigureRequested(by, token))
        return api.ConfigureAccepted(self._core.observed.inquiries, last_event)

    def await_configured(self, inquiry: int, tell: Callable[[api.ConfigureOutcome], None]) -> None:
        """Tell what the configuration was. An inquiry that is over was made twice, its answer lost;
        a later one has answered those before it."""
        past = self.past.last_configured
        if past is not None and past.inquiry >= inquiry:
            tell(past)
        else:
            self._inquirers.setdefault(inquiry, []).append(tell)

    def await_outcome(self, generation: int, tell: Tell) -> None:
        """Tell how the deploy ends. One that has ended was asked for twice, its answer lost."""
        past = self.past.last_deploy
        if past is not None and past.generation == generation:
            tell(api.ReloadOutcome(generation, past.outcome, past.reason))
        else:
            self._waiting.setdefault(generation, []).append(tell)

    def scale(self, workers: int, by: str) -> None:
        """Raises Refused."""
        if self._core.observed.stop is not None:
            raise Refused(409, "the service is being stopped; it cannot be scaled any more")
        self._core.post(ev.ScaleRequested(workers, by))

    def stop(self, immediate: bool, by: str, token: str) -> None:
        self._core.post(ev.StopRequested(by, immediate, token=token))

    def events_since(self, number: int) -> Iterable[api.Record]:
        return self._chronicle.since(number)

    def follow_events(self, reader: Callable[[api.Record], None]) -> Callable[[], None]:
        return self._chronicle.follow(reader)

    def status(self) -> api.Status:
        observed, spec, now = self._core.observed, self._core.spec, clock.monotonic()
        return api.Status(
            name=spec.name,
            pid=self._instance.main_pid,
            version=sengu.__version__,
            state=service_state(observed),
            uptime_seconds=clock.wall() - self.past.started_at,
            command=spec.command,
            generation=observed.current,
            workers_wanted=observed.wanted,
            listeners=tuple(
                api.ListenerStatus(listener.name, listener.address, listener.fd)
                for listener in self._stage.listeners
            ),
            passages=() if self._stage.passage is None else self._stage.passage.statuses(),
            deploy=_deploy_status(observed),
            last_deploy=self.past.last_deploy,
            workers=self._workers(now),
            last_event=self._chronicle.last_id,
            resting_from=observed.rested_from,
            server_pid=self._instance.pid,
            log=self._instance.log,
            servers=self.past.servers,
            adopted=self.past.adopted,
            lame_seconds=_left(observed.stop.lame_until if observed.stop else None, now),
            managed=self._managed(),
        )

    def _managed(self) -> tuple[api.ManagedStatus, ...]:
        manager = self._stage.sockets
        if manager is None:
            return ()
        return tuple(
            api.ManagedStatus(one.listener.address, one.note.generations) for one in manager.managed
        )

    def _workers(self, now: float) -> tuple[api.WorkerStatus, ...]:
        """All rows, with what the workers themselves tell of their requests."""
        observed, application = self._core.observed, self._core.spec.application
        rows = worker_statuses(observed, now)
        if application is None or not application.has_requests:
            return tuple(rows)
        ids = {worker.pid: worker.id for worker in observed.workers.values() if worker.pid}
        return tuple(
            _with_requests(row, self._crew.lines(ids[row.pid]), now) if row.pid in ids else row
            for row in rows
        )

    def on_fact(self, turn: Turn) -> None:
        """To be told of each fact after the chronicle."""
        self.past.learn(turn, self._chronicle.last_id)
        fact = turn.fact
        if isinstance(fact, ev.DeployConcluded):
            self._concluded.append(
                api.ReloadOutcome(fact.generation, fact.outcome, fact.reason, fact.last_words)
            )
        found = outcome_of(turn) if self._inquirers else None
        if found is not None:
            for inquiry in [one for one in self._inquirers if one <= found.inquiry]:
                for tell_found in self._inquirers.pop(inquiry):
                    tell_found(found)

    def on_settled(self) -> None:
        """Answer those who wait, now that what follows from the facts is under way."""
        self._chronicle.tell()
        concluded, self._concluded = self._concluded, []
        for outcome in concluded:
            for tell in self._waiting.pop(outcome.generation, ()):
                tell(outcome)


def service_state(observed: Observed) -> api.ServiceState:
    if observed.stop is not None:
        return api.ServiceState.STOPPING
    if observed.current == 0:
        return api.ServiceState.STARTING
    if observed.deploy is not None:
        return api.ServiceState.DEPLOYING
    return api.ServiceState.SERVING


def worker_statuses(observed: Observed, now: float) -> list[api.WorkerStatus]:
    """All workers by generation and slot, and the slots that wait to start the next one."""
    rows = [_worker_status(observed, worker, now) for worker in observed.workers.values()]
    occupied = {(w.generation, w.slot) for w in observed.workers.values() if w.is_wanted}
    wanted_generations = {observed.current}
    if observed.deploy is not None:
        wanted_generations.add(observed.deploy.generation)
    for (generation, slot), account in observed.slots.items():
        is_waiting = generation in wanted_generations and slot < observed.wanted
        if is_waiting and (generation, slot) not in occupied:
            closed = account.is_closed
            rows.append(
                api.WorkerStatus(
                    slot,
                    generation,
                    api.WorkerState.CLOSED if closed else api.WorkerState.BACKOFF,
                    restarts=account.restarts,
                    last_failure=account.last_failure,
                    retry_in_seconds=None if closed else max(0.0, account.retry_at - now),
                )
            )
    return sorted(rows, key=lambda row: (row.generation, row.slot, row.pid or 0))


def _worker_status(observed: Observed, worker: Worker, now: float) -> api.WorkerStatus:
    account = observed.slot(worker.generation, worker.slot)
    return api.WorkerStatus(
        slot=worker.slot,
        generation=worker.generation,
        state=api.WorkerState(worker.phase.value),
        pid=worker.pid or None,
        uptime_seconds=now - worker.started_at,
        restarts=account.restarts,
        status=worker.status,
        last_failure=account.last_failure,
        kill_in_seconds=_left(worker.kill_at, now),
        drain_seconds=_left(worker.drain_until, now) if worker.phase is Phase.DRAINING else None,
    )


def _left(until: float | None, now: float) -> float | None:
    return None if until is None else max(0.0, until - now)


def _with_requests(row: api.WorkerStatus, lines: list[Line], now: float) -> api.WorkerStatus:
    if not lines:
        return row
    busy = sorted((line for line in lines if line.is_busy), key=lambda line: line.started_at)
    return msgspec.structs.replace(
        row,
        requests=sum(line.requests for line in lines),
        busy=len(busy),
        connections=sum(line.connections for line in lines),
        doing=f"{busy[0].request} for {now - busy[0].started_at:.1f} s" if busy else "",
    )


def _deploy_status(observed: Observed) -> api.DeployStatus | None:
    deploy = observed.deploy
    if deploy is None:
        return None
    return api.DeployStatus(
        deploy.generation, deploy.requested_by, deploy.failures, deploy.last_failure
    )
