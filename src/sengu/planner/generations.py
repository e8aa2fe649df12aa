"""What becomes of generations before their first worker and after their last: part of `reduce`."""

from typing import assert_never

import msgspec

from sengu.model import events as ev
from sengu.model.observed import Generation, Observed, Step
from sengu.model.service import ServiceSpec
from sengu.planner.account import Failure, charge_deploy
from sengu.planner.inquiries import InquiryFact, change_generation, reduce_inquiry, unsent

replace = msgspec.structs.replace

GenerationFact = (
    ev.StepStarted
    | ev.StepStopping
    | ev.StepKilled
    | ev.StepEnded
    | ev.GenerationPreparing
    | ev.GenerationPrepared
    | ev.GenerationFailed
    | ev.GenerationLost
    | ev.GenerationRetired
    | InquiryFact
)


def reduce_generation(
    spec: ServiceSpec, observed: Observed, event: GenerationFact, now: float
) -> Observed:
    """Take one fact in that is about a generation; one that is forgotten stays so."""
    generation = observed.generations.get(event.generation)
    if generation is None:
        return observed
    match event:
        case ev.StepStarted():
            step = Step(event.step, event.command, now)
            return change_generation(observed, event.generation, step=step)
        case ev.StepStopping() | ev.StepKilled() | ev.StepEnded():
            if generation.step is None:
                return observed
            return _change_step(spec, observed, event, generation.step, now)
        case ev.GenerationPreparing():
            return change_generation(
                observed, event.generation, preparing_since=now, pacing=event.pacing
            )
        case ev.GenerationPrepared():
            return change_generation(
                observed,
                event.generation,
                prepared=True,
                preparing_since=None,
                failures=0,
                pacing=event.pacing,
            )
        case ev.GenerationFailed():
            failure = Failure(event.problem, now, event.last_words)
            return _failed(spec, observed, generation, failure)
        case ev.GenerationLost():
            return change_generation(
                observed,
                event.generation,
                prepared=False,
                preparing_since=None,
                inquiry=unsent(generation.inquiry),
            )
        case ev.ConfigureSent() | ev.Configured() | ev.ConfigureFailed():
            return reduce_inquiry(observed, generation, event, now)
        case ev.GenerationRetired():
            return _forget(observed, event.generation)
        case _:
            assert_never(event)


def _change_step(
    spec: ServiceSpec,
    observed: Observed,
    event: ev.StepStopping | ev.StepKilled | ev.StepEnded,
    step: Step,
    now: float,
) -> Observed:
    number = event.generation
    match event:
        case ev.StepStopping():
            step = replace(step, kill_at=event.kill_at, problem=event.reason)
            return change_generation(observed, number, step=step)
        case ev.StepKilled():
            problem = step.problem or event.reason
            step = replace(step, is_killed=True, problem=problem)
            return change_generation(observed, number, step=step)
        case ev.StepEnded():
            # Who was asked to stop has not done what it was there for, whatever it says.
            problem = step.problem or event.problem
            if not problem:
                return change_generation(observed, number, step=None, steps_done=step.number + 1)
            observed = change_generation(observed, number, step=None)
            failure = Failure(f"{step.title} {problem}", now, event.last_words)
            return _failed(spec, observed, observed.generations[number], failure)
        case _:
            assert_never(event)


def _failed(
    spec: ServiceSpec, observed: Observed, generation: Generation, failure: Failure
) -> Observed:
    failures = generation.failures + 1
    observed = change_generation(
        observed,
        generation.number,
        preparing_since=None,
        failures=failures,
        inquiry=None,
        retry_at=failure.at + spec.restart.delay_seconds(failures + 1),
    )
    return charge_deploy(observed, generation.number, failure)


def _forget(observed: Observed, number: int) -> Observed:
    return replace(
        observed,
        generations={k: v for k, v in observed.generations.items() if k != number},
        slots={k: v for k, v in observed.slots.items() if k[0] != number},
    )
