"""The sweep: containers of a service whose runner was killed, and could not see to their end."""

import sys

from sengu.container.engine import Engine, EngineFailed
from sengu.container.identity import RUNNER_LABEL, SERVICE_LABEL, is_dead
from sengu.container.order import Sweep

# An engine stops one with the signal and the time that it was started with; a day is enough.
_STOP_SECONDS = 86400.0


def sweep(chore: Sweep, engine: Engine) -> int:
    """Returns the exit code. What it does is told on stderr."""
    try:
        orphans = _orphans(engine, chore.service)
        if not orphans:
            return 0
        if not chore.now:
            engine.ask("stop", *orphans, seconds=_STOP_SECONDS)
        answer = engine.remove(*orphans)
        left = [] if answer.is_good else _orphans(engine, chore.service)
    except (EngineFailed, OSError) as problem:
        _tell(f"cannot look for containers without a runner: {problem}")
        return 1
    if left:
        _tell(f"could not remove {' '.join(left)}: {answer.problem}")
        return 1
    _tell(f"removed containers whose runner was killed: {' '.join(orphans)}")
    return 0


def _orphans(engine: Engine, service: str) -> list[str]:
    """Their names. Raises EngineFailed, OSError."""
    containers = engine.find(f"{SERVICE_LABEL}={service}")
    if not containers:
        return []
    wanted = f'{{{{index .Config.Labels "{RUNNER_LABEL}"}}}} {{{{.Name}}}}'
    lines = engine.ask("container", "inspect", "--format", wanted, *containers).text.splitlines()
    pairs = (line.partition(" ") for line in lines)  # of one that has gone meanwhile there is none
    return [name.removeprefix("/") for label, _, name in pairs if is_dead(label)]


def _tell(text: str) -> None:
    print(f"sengu: container: {text}", file=sys.stderr, flush=True)
