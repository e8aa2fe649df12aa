"""Profiles for random histories: `fast` for every run, `long` for a night.

`pytest tests/unit --hypothesis-profile=long` looks for what the fast one has not found yet. The
fast one always plays the same histories, so that a change is not blamed for another's fault.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("fast", max_examples=80, derandomize=True, deadline=None)
settings.register_profile(
    "long", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fast")
