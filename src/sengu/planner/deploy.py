"""The deploy under way: prepare, candidate first, then the rest, then the verdict.

Nothing of the old generation is touched before the verdict, but for a rolling deploy's slots
(`retire`). A deploy asked for while another is starting supersedes it.
"""

from sengu.model.actions import ConcludeDeploy, RequestDeploy
from sengu.model.observed import Deploy, Generation, Observed, Outcome, Phase
from sengu.model.service import ServiceSpec
from sengu.planner.account import final_code
from sengu.planner.agenda import Agenda
from sengu.planner.populate import start_slots
from sengu.planner.prepare import prepare
from sengu.planner.quorum import room


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    for number in observed.superseded:
        newest = f"generation {observed.last_generation} was asked for meanwhile"
        agenda.do(ConcludeDeploy(number, Outcome.SUPERSEDED, newest))
    if observed.deploy is None:
        _auto_restart(observed, agenda)
        return
    generation = observed.generations[observed.deploy.generation]
    is_complete = _is_complete(observed, generation.number)
    if not generation.prepared and not (is_complete and observed.wanted > 0):
        _prepare(spec, observed, observed.deploy, generation, agenda)
    elif observed.deploy.failures >= spec.boot.attempts or _is_hopeless(observed):
        _give_up(observed.deploy, agenda)
    elif is_complete:
        agenda.do(_verdict(observed.deploy, Outcome.SUCCEEDED, "all workers are ready"))
    else:
        _bring_up(spec, observed, observed.deploy, agenda)


def _is_complete(observed: Observed, generation: int) -> bool:
    """Whether every wanted slot has a ready worker of `generation`."""
    ready = {
        worker.slot
        for worker in observed.workers_of(generation)
        if worker.phase is Phase.READY and worker.slot < observed.wanted
    }
    return len(ready) == observed.wanted


def _is_hopeless(observed: Observed) -> bool:
    """Whether one of its workers has ended in a way that no other attempt would mend."""
    deploy = observed.deploy
    return deploy is not None and final_code(observed, deploy.generation) is not None


def _prepare(
    spec: ServiceSpec, observed: Observed, deploy: Deploy, generation: Generation, agenda: Agenda
) -> None:
    if generation.failures:  # what it shares could not be made; trying again would not help
        outcome = Outcome.ROLLED_BACK if deploy.has_stopped_old else Outcome.ABORTED
        agenda.do(_verdict(deploy, outcome, deploy.last_failure))
    elif deploy.failures >= spec.boot.attempts or _is_hopeless(observed):
        _give_up(deploy, agenda)
    else:
        prepare(spec, observed, generation, agenda, f"asked for by {deploy.requested_by}")


def _give_up(deploy: Deploy, agenda: Agenda) -> None:
    tried = "" if deploy.failures == 1 else f"{deploy.failures} failures, the last: "
    outcome = Outcome.ROLLED_BACK if deploy.has_stopped_old else Outcome.ABORTED
    agenda.do(_verdict(deploy, outcome, tried + deploy.last_failure))


def _verdict(deploy: Deploy, outcome: Outcome, reason: str) -> ConcludeDeploy:
    words = "" if outcome is Outcome.SUCCEEDED else deploy.last_words
    return ConcludeDeploy(deploy.generation, outcome, reason, words)


def _bring_up(spec: ServiceSpec, observed: Observed, deploy: Deploy, agenda: Agenda) -> None:
    generation = deploy.generation
    mine = list(observed.workers_of(generation))
    taken = {worker.slot for worker in mine if worker.is_wanted}
    missing = [slot for slot in range(observed.wanted) if slot not in taken]
    if observed.current == 0:
        start_slots(observed, generation, missing, agenda, "first generation")
    elif not any(worker.phase is Phase.READY for worker in mine):
        if not taken:  # one candidate shows whether the new generation is any good
            start_slots(observed, generation, missing[:1], agenda, "candidate of the deploy")
    else:
        start_slots(
            observed, generation, missing[: room(spec, observed)], agenda, "the candidate is ready"
        )


def _auto_restart(observed: Observed, agenda: Agenda) -> None:
    """As Server::Starter: after the interval if no old worker is left, after two in any case.

    A deploy that failed counts as well: the next try comes an interval later, not at once.
    """
    generation = observed.generations.get(observed.current)
    interval = generation.pacing.auto_restart_seconds if generation else None
    if interval is None or observed.rested_from is not None:
        return
    only_current = all(w.generation == observed.current for w in observed.workers.values())
    if agenda.is_due(observed.concluded_at + interval * (1 if only_current else 2)):
        agenda.do(RequestDeploy("auto-restart"))
