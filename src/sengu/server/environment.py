"""What a worker finds in its environment: ours, the envdir's, and the contract's variables."""

import msgspec

from sengu.listeners.listeners import Layout

_NOT_FOR_WORKERS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "SERVER_STARTER_PORT")


class Identity(msgspec.Struct, frozen=True):
    """Who a worker is."""

    service: str
    generation: int
    slot: int


def generation_environment(
    base: dict[str, str], service: str, generation: int, layout: Layout
) -> dict[str, str]:
    """What all workers of a generation find, and their fork server if they have one.

    `base` is ours with the envdir's laid over it. LISTEN_PID is added by each worker's own process.
    """
    environment = {key: value for key, value in base.items() if key not in _NOT_FOR_WORKERS}
    environment.update(layout.environment)
    environment["SERVER_STARTER_GENERATION"] = str(generation)
    environment["SENGU_SERVICE"] = service
    environment["SENGU_GENERATION"] = str(generation)
    environment["SENGU_LIFELINE_FD"] = str(layout.next_fd)
    return environment


def worker_environment(
    base: dict[str, str],
    identity: Identity,
    layout: Layout,
    notify_socket: str,
    watchdog_seconds: float | None,
) -> dict[str, str]:
    """The environment of one worker that is executed."""
    environment = generation_environment(base, identity.service, identity.generation, layout)
    environment["SENGU_SLOT"] = str(identity.slot)
    environment["NOTIFY_SOCKET"] = notify_socket
    if watchdog_seconds is not None:
        environment["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1_000_000))
    return environment
