"""Has a generation prepared before its first worker: its steps done, its environment read, its
application loaded.

Imported by the policies that start workers.
"""

from sengu.model.actions import AbandonPreparation, PrepareGeneration
from sengu.model.observed import Generation, Observed
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda
from sengu.planner.steps import begin_next


def prepare(
    spec: ServiceSpec, observed: Observed, generation: Generation, agenda: Agenda, reason: str
) -> None:
    """Begin, or wait for what has begun, until its deadline.

    Steps are done once: not again when the fork server is lost.
    """
    since = generation.preparing_since
    if generation.steps_done < len(spec.pre_deploy):
        begin_next(observed, generation, agenda, reason)
    elif since is None:
        if agenda.is_due(generation.retry_at):
            inquiry = 0 if generation.inquiry is None else generation.inquiry.number
            agenda.do(PrepareGeneration(generation.number, reason, inquiry))
    elif agenda.is_due(since + spec.boot.timeout_seconds):
        problem = f"the application was not loaded within {spec.boot.timeout_seconds:g} s"
        agenda.do(AbandonPreparation(generation.number, problem))
