"""Facts in words: the sentence that log, `sengu events` and the control API show.

Pure. None for facts that are too many or too small to be told.
"""

from typing import assert_never

from sengu.model import events as ev
from sengu.model.observed import Observed, Outcome, Phase
from sengu.planner.reduce import Fact
from sengu.posix.process import signal_name

LOSS = "the end of the supervisor"  # after which nobody hears signals


def narrate(fact: Fact, before: Observed, after: Observed) -> str | None:
    """One sentence about `fact`, given what was observed before and after it."""
    match fact:
        case ev.DeployRequested():
            if after.last_generation == before.last_generation:
                return f"{fact.by} asked for a deploy, but the service is being stopped"
            how = "immediate deploy" if fact.immediate else "deploy"
            return f"{how} of generation {after.last_generation} asked for by {fact.by}"
        case ev.DeployConcluded():
            return _concluded(fact, before, after)
        case ev.WorkerStarted() if after is not before:
            return (
                f"worker {fact.slot} of generation {fact.generation} started "
                f"as pid {fact.pid} ({fact.reason})"
            )
        case ev.StartFailed():
            return _start_failed(fact.problem, fact.generation, fact.slot, after)
        case ev.WorkerReady() if _was_starting(fact.worker, before):  # it may say so again later
            return f"{_worker(fact.worker, after)} is ready: {fact.reason}"
        case ev.WorkerExited() if fact.worker in before.workers:
            return _exited(fact, before, after)
        case _:
            return (
                _going(fact, before)
                or _step(fact, before)
                or _generation(fact, before)
                or _asked(fact, before, after)
                or _configured(fact, before, after)
                or _server(fact)
            )


def _going(fact: Fact, before: Observed) -> str | None:
    """What leads to the end of a worker that is there."""
    match fact:
        case ev.WorkerWorn() if fact.worker in before.workers:
            return f"{_worker(fact.worker, before)} is worn out: {fact.reason}"
        case ev.WorkerDraining() if fact.worker in before.workers:
            said = "gets no more connections, and is drained"
            return f"{_worker(fact.worker, before)} {said}: {fact.reason}"
        case ev.WorkerDrained() if _is_draining(fact.worker, before):
            return f"{_worker(fact.worker, before)} has drained: {fact.how}"
        case ev.WorkerStopping() if fact.worker in before.workers:
            name = signal_name(fact.signal)
            return f"{_worker(fact.worker, before)} is asked to stop by {name}: {fact.reason}"
        case ev.WorkerUrged() if fact.worker in before.workers:
            name = signal_name(fact.signal)
            return f"{_worker(fact.worker, before)} is asked once more, by {name}: {fact.reason}"
        case ev.WorkerKilled() if fact.worker in before.workers:
            return f"{_worker(fact.worker, before)} is killed: {fact.reason}"
        case _:
            return None


def _step(fact: Fact, before: Observed) -> str | None:
    """Of a command that runs before a generation is prepared."""
    match fact:
        case ev.StepStarted():
            return f"--pre-deploy {fact.command!r} runs before generation {fact.generation}"
        case ev.StepStopping() | ev.StepKilled() | ev.StepEnded():
            generation = before.generations.get(fact.generation)
            if generation is None or generation.step is None:
                return None
            return f"{generation.step.title} of generation {fact.generation} {_said(fact)}"
        case _:
            return None


def _said(fact: ev.StepStopping | ev.StepKilled | ev.StepEnded) -> str:
    match fact:
        case ev.StepStopping():
            return f"is asked to stop by TERM: {fact.reason}"
        case ev.StepKilled():
            return f"is killed: {fact.reason}"
        case ev.StepEnded():
            return fact.problem or "is done"
        case _:
            assert_never(fact)


def _generation(fact: Fact, before: Observed) -> str | None:
    match fact:
        case ev.GenerationFailed() if _is_being_deployed(fact.generation, before):
            return f"generation {fact.generation} cannot be prepared"  # the deploy's end says why
        case ev.GenerationFailed():
            return f"generation {fact.generation} cannot be prepared: {fact.problem}"
        case ev.GenerationLost():
            return (
                f"the fork server of generation {fact.generation} is lost: {fact.how}; "
                "its workers live on, and another is started when one is needed"
            )
        case ev.GenerationRetired():
            return f"generation {fact.generation} is gone"
        case _:
            return None


def _asked(fact: Fact, before: Observed, after: Observed) -> str | None:
    match fact:
        case ev.ScaleRequested() | ev.ScaleAdjusted():
            return f"scaled to {after.wanted} workers by {fact.by}"
        case ev.RestRequested():
            return f"workers are stopped and listeners kept by {fact.by}"
        case ev.StopRequested() if fact.immediate:
            return f"immediate stop asked for by {fact.by}"
        case ev.StopRequested():
            return f"stop asked for by {fact.by}{_how_it_stops(fact, before, after)}"
        case ev.ServiceStopped():
            return "all workers are gone"
        case _:
            return None


def _configured(fact: Fact, before: Observed, after: Observed) -> str | None:
    match fact:
        case ev.ConfigureRequested() if after.inquiries == before.inquiries:
            return f"{fact.by} asked for the configuration to be read, but there is none to be read"
        case ev.ConfigureRequested():
            return f"the configuration is read anew, asked for by {fact.by}"
        case ev.ConfigureFailed():
            return f"the configuration stays as it was: {fact.problem}"
        case ev.Configured():
            found = [*fact.taken, *fact.waiting, *fact.overridden]
            if fact.inquiry and fact.is_new:
                found.insert(0, "workers have another one now")
            elif fact.inquiry and not found:
                found.append("nothing has changed")
            if not found:
                return None
            return f"configuration of generation {fact.generation}: {'; '.join(found)}"
        case _:
            return None


def _how_it_stops(fact: ev.StopRequested, before: Observed, after: Observed) -> str:
    if fact.by == LOSS or fact.exit_code is not None:
        return ""
    if after.stop is None or before.stop is not None or after.stop.lame_until is None:
        return "; INT again, or QUIT, would not wait for workers"
    return "; until others have learnt of it (--lame-duck) all is served, or until TERM comes again"


def _concluded(fact: ev.DeployConcluded, before: Observed, after: Observed) -> str:
    said = f"deploy of generation {fact.generation} {fact.outcome}"
    if before.stop is None and after.stop is not None:
        return said  # with it the service ends, and that it did not come up is its last word
    said = f"{said}: {fact.reason}"
    if fact.outcome in (Outcome.SUCCEEDED, Outcome.SUPERSEDED):
        return said
    keeps_serving = before.current > 0 and before.stop is None
    return f"{said}; the old generation keeps serving" if keeps_serving else said


def _server(fact: Fact) -> str | None:
    match fact:
        case ev.ServerAdopted():
            return _adopted(fact)
        case ev.UpgradeRequested():
            return f"upgrade of sengu asked for by {fact.by}"
        case ev.UpgradeFailed():
            return f"sengu is not upgraded: {fact.problem}; the old version goes on"
        case ev.Upgraded() if fact.version == fact.before:
            return f"sengu {fact.version} goes on as installed now, which is the same version"
        case ev.Upgraded():
            return f"sengu is upgraded from {fact.before} to {fact.version}"
        case _:
            return None


def _adopted(fact: ev.ServerAdopted) -> str:
    found = [f"{fact.workers} workers live on" if fact.workers != 1 else "1 worker lives on"]
    if fact.ended:
        found.append(f"{fact.ended} ended meanwhile")
    if fact.unwanted:
        found.append(f"{fact.unwanted} that nobody wants any more killed")
    if fact.missing:
        found.append(f"{fact.missing} asked for again")
    return f"server {fact.pid} has taken over: {', '.join(found)}"


def _start_failed(problem: str, generation: int, slot: int, after: Observed) -> str:
    failures = after.slot(generation, slot).failures
    return (
        f"worker {slot} of generation {generation} could not be started: "
        f"{problem} (failure {failures} in a row)"
    )


def _exited(fact: ev.WorkerExited, before: Observed, after: Observed) -> str:
    worker = before.workers[fact.worker]
    if not worker.pid and worker.is_wanted:
        problem = fact.how.removeprefix("no process: ")
        return _start_failed(problem, worker.generation, worker.slot, after)
    if not worker.pid:
        return f"{_worker(fact.worker, before)} has {fact.how}"
    said = f"{_worker(fact.worker, before)} exited with {fact.how}"
    if not worker.is_wanted:
        return said
    account = after.slot(worker.generation, worker.slot)
    if account.is_closed:
        return f"{said}, which is final: it is not replaced (--unrecoverable-exit-codes)"
    if account.failures > 1:
        return f"{said}, unexpectedly; failure {account.failures} in a row"
    return f"{said}, unexpectedly"


def _was_starting(worker_id: int, before: Observed) -> bool:
    worker = before.workers.get(worker_id)
    return worker is not None and worker.phase is Phase.STARTING


def _is_being_deployed(generation: int, before: Observed) -> bool:
    deploy = before.deploy if before.stop is None else None
    return deploy is not None and deploy.generation == generation


def _is_draining(worker_id: int, before: Observed) -> bool:
    """Of one who is being stopped anyhow it is of no interest."""
    worker = before.workers.get(worker_id)
    return worker is not None and worker.phase is Phase.DRAINING


def _worker(worker_id: int, observed: Observed) -> str:
    worker = observed.workers[worker_id]
    pid = f" (pid {worker.pid})" if worker.pid else ""  # none before its fork server tells of it
    return f"worker {worker.slot} of generation {worker.generation}{pid}"
