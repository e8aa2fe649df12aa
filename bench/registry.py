"""Finds the measurements: every module of `bench.measurements` has one."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from bench import measurements
from bench.results import Result
from bench.session import Session


class Measurement(NamedTuple):
    """A name for the command line, a place on the page, and what to run."""

    name: str
    order: int
    run: Callable[[Session], Result]


def all_measurements() -> list[Measurement]:
    """In the order of the page."""
    found = [
        importlib.import_module(f"bench.measurements.{module.name}").MEASUREMENT
        for module in pkgutil.iter_modules(measurements.__path__)
    ]
    return sorted(found, key=lambda measurement: measurement.order)
