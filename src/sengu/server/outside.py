"""What the world outside is told of the service: manager, status file, process title, log, and,
by the workers, whoever asks for its health.

Each of them is told after every settled round, and says nothing when nothing has changed.
"""

import os

import msgspec

from sengu.config.boot import Report
from sengu.control.api import ServiceState
from sengu.model import events as ev
from sengu.model.observed import Observed, Outcome, Phase
from sengu.posix.store import Store
from sengu.posix.title import Title
from sengu.server.core import Turn
from sengu.server.files import StatusFile
from sengu.server.notify import Manager
from sengu.server.output import Sink
from sengu.server.scoreboard import Scoreboard
from sengu.server.service import service_state

_FAILED = 1


class Outside:
    """Follows the facts (`on_fact`) and the state they lead to (`on_settled`)."""

    def __init__(
        self,
        name: str,
        manager: Manager,
        status_file: StatusFile | None,
        store: Store,
        scoreboard: Scoreboard | None,
    ) -> None:
        self._name = name
        self._scoreboard = scoreboard
        self._title = Title()
        self._manager = manager
        self._status_file = status_file
        self._store = store
        self._outcome: Report | None = None
        self._summary = ""
        self._state = ServiceState.STARTING

    def on_fact(self, turn: Turn) -> None:
        fact, after = turn.fact, turn.after
        if isinstance(fact, ev.DeployConcluded) and turn.before.current == 0:
            self._conclude_first(fact, after)
        if not turn.is_news:  # whether it was said nobody knows, so how it is now is said again
            return
        if isinstance(fact, ev.DeployRequested) and service_state(after) is ServiceState.DEPLOYING:
            # At once and each time: the deploy may be over before all is settled, or take the
            # place of another, and who has sent HUP waits to hear of his own.
            self._manager.say_reloading()
            self._state = ServiceState.DEPLOYING
        if isinstance(fact, ev.DeployConcluded | ev.GenerationRetired):
            # Before anybody is told of it: who is may look into the file next.
            self._write_status_file(after)

    def _conclude_first(self, fact: ev.DeployConcluded, after: Observed) -> None:
        if fact.outcome is Outcome.SUCCEEDED:
            self._outcome = Report(0)
        elif after.stop is not None:  # it failed, or was stopped before it was up
            failure = _describe_failure(fact.generation, fact.reason)
            words = f"\n{fact.last_words}" if fact.last_words else ""
            self._outcome = Report(after.stop.exit_code or _FAILED, failure + words)

    def on_settled(self, observed: Observed) -> None:
        if self._scoreboard is not None:
            self._scoreboard.show_ending(observed.stop is not None)
        self._write_status_file(observed)
        if self._outcome is not None:
            tell_starter(self._store, self._outcome)
            self._outcome = None
        self._tell_manager(observed)
        summary = summarize(observed)
        if summary != self._summary:
            self._summary = summary
            self._title.set(f"sengu: {self._name}: {summary}")
            self._manager.say(f"STATUS={summary}")

    def _write_status_file(self, observed: Observed) -> None:
        if self._status_file is None:
            return
        # As the peer: a worker is listed once it serves, and until it is gone.
        self._status_file.write(
            (worker.generation, worker.pid)
            for worker in observed.workers.values()
            if worker.ready_at is not None
        )

    def _tell_manager(self, observed: Observed) -> None:
        state = service_state(observed)
        if state is self._state:
            return
        self._state = state
        match state:
            case ServiceState.SERVING:
                self._manager.say("READY=1")
            case ServiceState.STOPPING:
                self._manager.say("STOPPING=1")
            case ServiceState.DEPLOYING:  # as asked for before our time
                self._manager.say_reloading()
            case ServiceState.STARTING:
                pass


def summarize(observed: Observed) -> str:
    """One line: `generation 3, 4 of 4 ready, deploying generation 4`."""
    ready = sum(
        worker.phase is Phase.READY and worker.generation == observed.current
        for worker in observed.workers.values()
    )
    parts = [f"generation {observed.current}, {ready} of {observed.wanted} ready"]
    if observed.stop is not None:
        parts = [f"stopping, {len(observed.workers)} left"]
    elif observed.deploy is not None:
        parts.append(f"deploying generation {observed.deploy.generation}")
    return ", ".join(parts)


def failure_of(observed: Observed) -> str:
    """Why the service never came up; empty when it did, or was stopped before."""
    if observed.stop is None or not observed.stop.failure:
        return ""
    return _describe_failure(observed.last_generation, observed.stop.failure)


def conclude(observed: Observed, sink: Sink) -> int:
    """Say why the service never came up, if it did not; returns the exit code.

    That is the code of a worker, if it was its end that made an end of the service.
    """
    failure, stop = failure_of(observed), observed.stop
    if failure:
        sink.write(f"sengu: error: {failure}\n".encode())
    given = 0 if stop is None else stop.exit_code or 0
    return given or (_FAILED if failure else 0)


def _describe_failure(generation: int, reason: str) -> str:
    return f"generation {generation} did not come up: {reason}"


def tell_starter(store: Store, report: Report) -> bool:
    """Tell whoever started us as a daemon how it went; whether there is somebody.

    Once, or twice by two servers, the first killed before it said `Drop`: one line is read.
    """
    held = store.take("report")
    if held is None:
        return False
    try:
        os.write(held.fd, msgspec.json.encode(report) + b"\n")
    except BrokenPipeError:  # it did not wait
        pass
    finally:
        os.close(held.fd)
        store.drop("report")
    return True
