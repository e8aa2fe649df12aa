"""How few workers may be there, and how many, while one generation replaces another."""

from sengu.model.observed import Observed
from sengu.model.service import Rolling, ServiceSpec


def quorum(spec: ServiceSpec, observed: Observed) -> int:
    """How many ready workers must stay when one is stopped by choice."""
    if isinstance(spec.strategy, Rolling) and observed.deploy is not None:
        return max(observed.wanted - spec.strategy.max_unavailable, 0)
    if observed.deploy is None:
        return observed.wanted - len(closed_slots(observed))
    return observed.wanted


def closed_slots(observed: Observed) -> set[int]:
    """Wanted slots of the serving generation whose worker is gone for good."""
    taken = {w.slot for w in observed.workers_of(observed.current) if w.is_wanted}
    return {
        slot
        for (generation, slot), account in observed.slots.items()
        if account.is_closed
        and generation == observed.current
        and slot < observed.wanted
        and slot not in taken
    }


def room(spec: ServiceSpec, observed: Observed) -> int:
    """How many workers the generation under way may start now, once its candidate is ready."""
    if isinstance(spec.strategy, Rolling):
        return max(observed.wanted + spec.strategy.max_surge - observed.live_count(), 0)
    return observed.wanted
