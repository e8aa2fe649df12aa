"""Chance without dice: the same for each server that plans, and spread evenly."""

# Workers are numbered one after the other; multiples of the golden ratio fall evenly into [0, 1).
_GOLDEN_RATIO = 0.618033988749895


def lot(worker: int) -> float:
    """What that worker has drawn, in [0, 1)."""
    return worker * _GOLDEN_RATIO % 1


def varied(seconds: float, part: float, worker: int) -> float:
    """A time that varies by that part of itself, half of it either way."""
    return seconds * (1 + part * (lot(worker) - 0.5))
