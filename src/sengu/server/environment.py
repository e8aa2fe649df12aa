"""What a worker finds in its environment: ours, the envdir's, and the contract's variables."""

import msgspec

from sengu.listeners.listeners import Layout

_NOT_FOR_WORKERS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "SERVER_STARTER_PORT")


class Identity(msgspec.Struct, frozen=True):
    """Who a worker is."""

    service: str
    generation: int
    slot: int


def worker_environment(
    base: dict[str, str],
    identity: Identity,
    layout: Layout,
    notify_socket: str,
    watchdog_seconds: float | None,
) -> dict[str, str]:
    """The environment of one worker; LISTEN_PID is added by the worker's own process.

    `base` is the generation's: ours with the envdir's laid over it.
    """
    environment = {key: value for key, value in base.items() if key not in _NOT_FOR_WORKERS}
    environment.update(layout.environment)
    environment["SERVER_STARTER_GENERATION"] = str(identity.generation)
    environment["SENGU_SERVICE"] = identity.service
    environment["SENGU_SLOT"] = str(identity.slot)
    environment["SENGU_GENERATION"] = str(identity.generation)
    environment["SENGU_LIFELINE_FD"] = str(layout.next_fd)
    environment["NOTIFY_SOCKET"] = notify_socket
    if watchdog_seconds is not None:
        environment["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1_000_000))
    return environment
