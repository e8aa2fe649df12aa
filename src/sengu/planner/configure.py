"""Has the configuration read anew when somebody has asked for it.

That is the fork server's part. Where it is gone, another is started: it reads it too.
"""

from sengu.model.actions import AbandonInquiry, AskConfiguration
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.planner.agenda import Agenda
from sengu.planner.prepare import prepare


def plan(spec: ServiceSpec, observed: Observed, agenda: Agenda) -> None:
    for generation in observed.generations.values():
        inquiry, number = generation.inquiry, generation.number
        if inquiry is None:
            continue
        if not generation.prepared:
            if number == observed.current:  # else the deploy does
                prepare(spec, observed, generation, agenda, "its configuration is to be read")
        elif inquiry.sent_at is None:
            agenda.do(AskConfiguration(number, inquiry.number, "it was asked for"))
        elif agenda.is_due(inquiry.sent_at + spec.boot.timeout_seconds):
            problem = f"it was not read within {spec.boot.timeout_seconds:g} s"
            agenda.do(AbandonInquiry(number, inquiry.number, problem))
