"""A run from its start to its end, when nothing of it may be left."""

from collections.abc import Callable

import pytest

from tests.chaos.driver import Driver, Outcome, start
from tests.chaos.load import Load
from tests.chaos.plan import Planner
from tests.ports import free_port
from tests.support import Sengu

_CLIENTS = 3


def run(seed: int, kills: int, workers: int, say: Callable[[str], None]) -> Outcome:
    """Chaos on `sengu serve`; what `say` gets tells how far it is."""
    sengu = Sengu()
    port = free_port()
    problems: list[str] = []
    summary = ""
    lines: list[str] = []
    try:
        instance = start(sengu, port, workers)
        with Load(port, _CLIENTS) as load:
            driver = Driver(instance, load, workers, say)
            problems, summary = driver.run(Planner(seed, kills, workers).steps())
        if (code := instance.stop()) != 0:
            problems.append(f"it has stopped with exit code {code}")
        driver.close()
        lines = sorted([*driver.history[-200:], *instance.lines[-500:]])  # by the time of day
    except pytest.fail.Exception as problem:
        problems.append(str(problem))
    finally:
        problems += _close(sengu)
    return Outcome([*problems, *lines] if problems else [], summary)


def _close(sengu: Sengu) -> list[str]:
    """What is left of it, if anything is."""
    try:
        sengu.close()
    except pytest.fail.Exception as problem:
        return [str(problem)]
    return []
