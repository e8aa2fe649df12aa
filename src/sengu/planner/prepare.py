"""Has a generation prepared before its first worker: its environment read, its application loaded.

Imported by the policies that start workers.
"""

from sengu.model.actions import AbandonPreparation, PrepareGeneration
from sengu.model.observed import Generation
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda


def prepare(spec: ServiceSpec, generation: Generation, agenda: Agenda, reason: str) -> None:
    """Begin, or wait for what has begun, until its deadline."""
    since = generation.preparing_since
    if since is None:
        if agenda.is_due(generation.retry_at):
            agenda.do(PrepareGeneration(generation.number, reason))
    elif agenda.is_due(since + spec.boot.timeout_seconds):
        problem = f"the application was not loaded within {spec.boot.timeout_seconds:g} s"
        agenda.do(AbandonPreparation(generation.number, problem))
