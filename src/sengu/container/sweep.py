"""The sweep: containers of a service whose runner was killed, and could not see to their end."""

import sys

from sengu.container.engine import Engine
from sengu.container.identity import RUNNER_LABEL, SERVICE_LABEL, is_dead
from sengu.container.order import Sweep

# An engine stops one with the signal and the time that it was started with; a day is enough.
_STOP_SECONDS = 86400.0


def sweep(chore: Sweep, engine: Engine) -> int:
    """Returns the exit code. What it does is told on stderr."""
    found = engine.find(f"{SERVICE_LABEL}={chore.service}")
    orphans = _orphans(engine, found) if found else []
    if not orphans:
        return 0
    if not chore.now:
        engine.ask("stop", *orphans, seconds=_STOP_SECONDS)
    answer = engine.remove(*orphans)
    if answer.is_good:
        _tell(f"removed containers whose runner was killed: {' '.join(orphans)}")
        return 0
    _tell(f"could not remove {' '.join(orphans)}: {answer.text}")
    return 1


def _orphans(engine: Engine, containers: list[str]) -> list[str]:
    """Their names."""
    wanted = f'{{{{index .Config.Labels "{RUNNER_LABEL}"}}}} {{{{.Name}}}}'
    orphans = []
    for line in engine.ask("container", "inspect", "--format", wanted, *containers).text.split(
        "\n"
    ):
        label, _, name = line.partition(" ")
        if name and is_dead(label):  # of one that has gone meanwhile there is an error instead
            orphans.append(name.removeprefix("/"))
    return orphans


def _tell(text: str) -> None:
    print(f"sengu: container: {text}", file=sys.stderr, flush=True)
