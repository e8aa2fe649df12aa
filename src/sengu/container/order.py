"""What the server tells a runner or a sweep: JSON on its command line, where nothing is secret.

The same names are in `server.containers`, which writes it.
"""

import json
from typing import NamedTuple, TypeVar


class Order(NamedTuple):
    """A container to be run. `engine` are the words before the engine's own verbs.

    Passed to it are the variables `names`, and those that `env_dir` has a file for. On each of
    `stop_signals`, the first of which is what the engine itself shall stop it with, it has
    `grace_seconds` to end. The server hears that it is ready when it has run for `ready_seconds`;
    None: somebody else sees to that.
    """

    engine: list[str]
    image: str
    args: list[str]
    options: list[str]
    names: list[str]
    env_dir: str | None
    stop_signals: list[int]
    grace_seconds: float
    ready_seconds: float | None


class Sweep(NamedTuple):
    """Containers of the service whose runner is dead are to go; `now`: without being asked."""

    engine: list[str]
    service: str
    now: bool


T = TypeVar("T", Order, Sweep)


def read(kind: type[T], text: str) -> T:
    return kind(**json.loads(text))
