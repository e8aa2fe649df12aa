"""The one module that reads clocks. Everything else is given the time as an argument."""

import time


def monotonic() -> float:
    """Seconds since some fixed moment; what all deadlines are counted in."""
    return time.monotonic()


def wall() -> float:
    """Seconds since 1970, for people."""
    return time.time()
