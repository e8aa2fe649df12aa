"""A container as a worker: what the server tells the runner that sees to it (`sengu.container`)."""

import msgspec

ENGINES = ("podman", "docker")  # the first one that is there is used


class Container(msgspec.Struct, frozen=True):
    """An image, and how it is run. `engine` are the words before the engine's own verbs.

    The container gets the variables `names`, and those for which `env_dir` has a file. Its runner
    says READY=1 when it has run for `ready_seconds`.
    """

    engine: tuple[str, ...]
    image: str
    args: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    env_dir: str | None = None
    ready_seconds: float | None = None
