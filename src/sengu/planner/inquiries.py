"""Inquiries, what the configuration is now, from the request to the answer: part of `reduce`."""

from typing import assert_never

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Generation, Inquiry, Observed
from sengu.model.service import ServiceSpec
from sengu.planner.account import open_slots

replace = msgspec.structs.replace

InquiryFact = ev.ConfigureSent | ev.Configured | ev.ConfigureFailed


def change_generation(observed: Observed, number: int, **changes: object) -> Observed:
    generation = observed.generations.get(number)
    if generation is None:
        return observed
    changed = replace(generation, **changes)
    return replace(observed, generations={**observed.generations, number: changed})


def configure_requested(spec: ServiceSpec, observed: Observed) -> Observed:
    """The generation that serves is asked, and one that is on its way and may have asked already.

    A later inquiry takes the place of one that is not answered yet; both are answered by it.
    """
    application = spec.application
    if application is None or not application.is_configured or observed.stop is not None:
        return observed  # a program's is its own, and nobody reads it for it
    number = observed.inquiries + 1
    observed = replace(observed, inquiries=number)
    for generation in _asked(observed):
        observed = change_generation(observed, generation, inquiry=Inquiry(number))
    return observed


def _asked(observed: Observed) -> set[int]:
    found = {observed.current} & set(observed.generations)
    deploy = observed.deploy
    if deploy is not None:
        newest = observed.generations[deploy.generation]
        if not found or newest.prepared or newest.preparing_since is not None:
            found.add(newest.number)
    return found


def reduce_inquiry(
    observed: Observed, generation: Generation, event: InquiryFact, now: float
) -> Observed:
    """Take in what has become of it."""
    inquiry = generation.inquiry
    is_answered = inquiry is not None and inquiry.number == event.inquiry
    match event:
        case ev.ConfigureSent():
            sent = Inquiry(event.inquiry, now) if is_answered else inquiry
            return change_generation(observed, generation.number, inquiry=sent)
        case ev.ConfigureFailed():
            left = None if is_answered else inquiry
            return change_generation(observed, generation.number, inquiry=left)
        case ev.Configured():
            left = None if is_answered else inquiry
            observed = change_generation(
                observed,
                generation.number,
                inquiry=left,
                pacing=event.pacing,
                configuration=event.version,
            )
            observed = replace(observed, settings=event.settings)
            return observed if event.workers is None else _scaled(observed, event.workers)
        case _:
            assert_never(event)


def unsent(inquiry: Inquiry | None) -> Inquiry | None:
    """Who was told of it is gone."""
    return inquiry and Inquiry(inquiry.number)


def _scaled(observed: Observed, workers: int) -> Observed:
    """A service that rests is not woken by it."""
    if observed.rested_from is not None:
        return replace(observed, rested_from=workers)
    return replace(observed, wanted=workers, slots=open_slots(observed))
