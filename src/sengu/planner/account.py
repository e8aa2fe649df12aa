"""What a failure costs: its slot waits longer for the next start, its deploy loses an attempt."""

import msgspec

from sengu.model.observed import Observed, Slot, Worker
from sengu.model.service import ServiceSpec

replace = msgspec.structs.replace


class Failure(msgspec.Struct, frozen=True):
    """What went wrong at `at` (monotonic seconds), and the last words of the worker, if any."""

    problem: str
    at: float
    last_words: str = ""


def charge_worker(
    spec: ServiceSpec, observed: Observed, worker: Worker, failure: Failure
) -> Observed:
    """The worker died or missed a deadline, though nobody had asked it to stop."""
    account = observed.slot(worker.generation, worker.slot)
    if worker.pid:  # else there was no process, and what follows is no restart
        account = replace(account, restarts=account.restarts + 1)
    if _was_stable(spec, account, worker, failure.at):
        account = replace(account, failures=0)
    return _charge(spec, observed, (worker.generation, worker.slot), account, failure)


def _was_stable(spec: ServiceSpec, account: Slot, worker: Worker, now: float) -> bool:
    """Whether it makes up for the failures before it; those of its successors are none of them."""
    if worker.ready_at is None or now - worker.ready_at < spec.restart.stable_seconds:
        return False
    return account.retry_at <= worker.ready_at  # later ones are of those that are to replace it


def charge_slot(
    spec: ServiceSpec, observed: Observed, key: tuple[int, int], failure: Failure
) -> Observed:
    """No worker came to be in the slot; `key` is its generation and number."""
    return _charge(spec, observed, key, observed.slot(*key), failure)


def close_slot(observed: Observed, worker: Worker, code: int) -> Observed:
    """No other worker comes into the place of one that has exited with such a code."""
    key = (worker.generation, worker.slot)
    if key not in observed.slots:  # forgotten, with its generation
        return observed
    slots = dict(observed.slots)
    slots[key] = replace(slots.pop(key), final_code=code)  # behind those that were closed before
    return replace(observed, slots=slots)


def open_slots(observed: Observed) -> dict[tuple[int, int], Slot]:
    """All accounts, none of them closed."""
    return {key: replace(slot, final_code=None) for key, slot in observed.slots.items()}


def final_code(observed: Observed, generation: int) -> int | None:
    """With which code a slot of the generation was closed last, if any was."""
    codes = [
        slot.final_code
        for (number, _), slot in observed.slots.items()
        if number == generation and slot.final_code is not None
    ]
    return codes[-1] if codes else None


def charge_deploy(observed: Observed, generation: int, failure: Failure) -> Observed:
    """One attempt less, if `generation` is the one under way."""
    deploy = observed.deploy
    if deploy is None or deploy.generation != generation:
        return observed
    deploy = replace(
        deploy,
        failures=deploy.failures + 1,
        last_failure=failure.problem,
        last_words=failure.last_words,
    )
    return replace(observed, deploy=deploy)


def _charge(
    spec: ServiceSpec, observed: Observed, key: tuple[int, int], account: Slot, failure: Failure
) -> Observed:
    generation = key[0]
    if generation not in observed.generations:  # forgotten, and so would be what is written now
        return observed
    failures = account.failures + 1
    account = replace(
        account,
        failures=failures,
        retry_at=failure.at + spec.restart.delay_seconds(failures),
        last_failure=failure.problem,
    )
    observed = replace(observed, slots={**observed.slots, key: account})
    return charge_deploy(observed, generation, failure)
