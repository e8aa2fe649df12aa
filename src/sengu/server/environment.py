"""What a worker finds in its environment: ours, the envdir's, and the contract's variables.

And how what is the same for all of a generation outlives the server.
"""

import os

import msgspec

from sengu.config.envdir import read_envdir
from sengu.config.pacing import pacing_from
from sengu.errors import UsageError
from sengu.listeners.listeners import Layout
from sengu.model.service import Pacing
from sengu.posix.store import Store

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


class Environments:
    """The environment of each generation, as it was read when it was prepared."""

    def __init__(self, store: Store, env_dir: str | None) -> None:
        self._store = store
        self._env_dir = env_dir
        self._all: dict[int, dict[str, str]] = {}

    def read(self, generation: int) -> tuple[dict[str, str], Pacing]:
        """Read it anew, and keep it. Raises UsageError."""
        environment = self.look()
        pacing = pacing_from(environment)
        try:
            self._hold(generation, environment)
        except OSError as error:
            raise UsageError(f"cannot keep the environment: {error.strerror}") from error
        self._all[generation] = environment
        return environment, pacing

    def look(self) -> dict[str, str]:
        """What it is now: ours, with the envdir's laid over it. Raises UsageError."""
        environment = dict(os.environ)
        try:
            if self._env_dir is not None:
                environment.update(read_envdir(self._env_dir))
        except OSError as error:
            raise UsageError(f"cannot read {self._env_dir}: {error.strerror}") from error
        return environment

    def _hold(self, generation: int, environment: dict[str, str]) -> None:
        pairs = (os.fsencode(f"{name}={value}") for name, value in environment.items())
        fd = os.memfd_create("sengu-environment", os.MFD_CLOEXEC)
        try:
            os.write(fd, b"\0".join(pairs))
            self._store.hold(f"environment/{generation}", fd)
        finally:
            os.close(fd)

    def adopt(self, generation: int) -> bool:
        """Find what was set before our time; whether it was."""
        held = self._store.take(f"environment/{generation}")
        if held is None:
            return False
        data = os.pread(held.fd, os.fstat(held.fd).st_size, 0)
        os.close(held.fd)
        pairs = (os.fsdecode(pair).partition("=") for pair in data.split(b"\0") if pair)
        self._all[generation] = {name: value for name, _, value in pairs}
        return True

    def of(self, generation: int) -> dict[str, str]:
        """Raises OSError when it was lost with another server, and could not be read anew."""
        if generation not in self._all:
            raise OSError(None, "the generation's environment is gone")
        return self._all[generation]

    def forget(self, generation: int) -> None:
        if self._all.pop(generation, None) is not None:
            self._store.drop(f"environment/{generation}")
