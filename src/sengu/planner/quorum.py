"""How few workers may be there, and how many, while one generation replaces another."""

from sengu.model.observed import Observed
from sengu.model.service import Rolling, ServiceSpec


def quorum(spec: ServiceSpec, observed: Observed) -> int:
    """How many ready workers must stay when one is stopped by choice."""
    if isinstance(spec.strategy, Rolling) and observed.deploy is not None:
        return max(observed.wanted - spec.strategy.max_unavailable, 0)
    return observed.wanted


def room(spec: ServiceSpec, observed: Observed) -> int:
    """How many workers the generation under way may start now, once its candidate is ready."""
    if isinstance(spec.strategy, Rolling):
        return max(observed.wanted + spec.strategy.max_surge - observed.live_count(), 0)
    return observed.wanted
