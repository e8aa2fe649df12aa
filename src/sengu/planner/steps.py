"""The steps of a generation, which are commands to run before it is prepared: begun and ended.

One at a time, also when a deploy supersedes another: no migration runs beside another. Imported by
`plan`, and by `prepare`, which has them run.
"""

from sengu.model.actions import KillStep, StartStep, StopStep
from sengu.model.observed import Generation, Observed, Step
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    """Ask a step to stop that nobody waits for any more; kill it when it does not."""
    for generation in observed.generations.values():
        step = generation.step
        if step is None or step.is_killed:
            continue
        number = generation.number
        if observed.stop is not None and observed.stop.immediate:
            agenda.do(KillStep(number, observed.stop.reason))
        elif step.kill_at is None:
            _judge(spec, observed, generation, step, agenda)
        elif agenda.is_due(step.kill_at):
            agenda.do(KillStep(number, "still there at the end of its grace period"))


def begin_next(observed: Observed, generation: Generation, agenda: Agenda, reason: str) -> None:
    """Unless one runs, of whichever generation: then its end is waited for."""
    if not is_any_running(observed):
        agenda.do(StartStep(generation.number, generation.steps_done, reason))


def is_any_running(observed: Observed) -> bool:
    return any(generation.step is not None for generation in observed.generations.values())


def _judge(
    spec: ServiceSpec, observed: Observed, generation: Generation, step: Step, agenda: Agenda
) -> None:
    deploy = observed.deploy
    kill_at = agenda.now + spec.stop.grace_seconds
    if observed.stop is not None:
        agenda.do(StopStep(generation.number, observed.stop.kill_at, observed.stop.reason))
    elif deploy is None or deploy.generation != generation.number:
        newest = f"generation {observed.last_generation} was asked for meanwhile"
        agenda.do(StopStep(generation.number, kill_at, newest))
    elif agenda.is_due(step.since + spec.pre_deploy_seconds):
        problem = f"was not done within {spec.pre_deploy_seconds:g} s"
        agenda.do(StopStep(generation.number, kill_at, problem))
