"""Configurations of worker classes: what fork servers have read is checked, and put where workers
find it.

Each generation has a memory file, which the supervisor holds, so that it outlives servers and fork
servers. Only the server writes it: what is wrong never gets there. Imported by `server.forkservers`
and `server.instance`.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sengu.config.boot import Boot
from sengu.errors import UsageError
from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.observed import Generation, Observed
from sengu.model.service import Pacing, ServiceSpec
from sengu.planner.reduce import Fact
from sengu.posix.store import Store
from sengu.posix.swap_file import SwapFile, make_swap_file
from sengu.server.environment import Environments
from sengu.wire.forkserver import MAX_CONFIGURATION_BYTES

if TYPE_CHECKING:
    from sengu.config.tuning import Tuner

_PREFIX = "config/"


class Found(msgspec.Struct, frozen=True):
    """What a fork server has read: settings, and a memory file with all of it, which is closed."""

    settings: Mapping[str, Any]
    fd: int


class Surroundings(msgspec.Struct, frozen=True):
    """What is known and who is told; `tell` gets a generation whose workers are to look again."""

    store: Store
    environments: Environments
    observed: Callable[[], Observed]
    post: Callable[[Fact], None]
    tell: Callable[[int], None]


class Configurations:
    """All of them, by generation. Without a `tuner` there is no such thing."""

    def __init__(self, tuner: "Tuner | None", around: Surroundings) -> None:
        self._tuner = tuner
        self._around = around
        self._files: dict[int, SwapFile] = {}
        self._application: Application | None = None

    def file(self, generation: int) -> SwapFile:
        """Where the generation's workers find it, who get it to read only. Raises OSError."""
        found = self._files.get(generation)
        if found is None:
            name = f"{_PREFIX}{generation}"
            held = self._around.store.take(name)
            if held is None:
                found = make_swap_file("sengu-config")
                self._around.store.hold(name, found.fd)
            else:
                found = SwapFile(held.fd)
            self._files[generation] = found
        return found

    def tell(self, generation: int) -> None:
        """Let its workers look, if they have any."""
        if self._tuner is not None:
            self._around.tell(generation)

    def forget(self, generation: int) -> None:
        name = f"{_PREFIX}{generation}"
        held = self._around.store.take(name)
        if held is not None:
            os.close(held.fd)
        found = self._files.pop(generation, None)
        if found is not None:
            os.close(found.fd)
        if held is not None or found is not None:
            self._around.store.drop(name)

    @property
    def application(self) -> Application | None:
        """As it is by what the configuration has said last; None where there is none."""
        if self._tuner is None:
            return None
        if self._application is None:
            self._application = self._tuner.recall(
                self._around.observed().settings
            ).spec.application
        return self._application

    def take(self, generation: int, found: Found, inquiry: int) -> Pacing:
        """Let it hold from now on, which is told. Raises UsageError: nothing has changed then."""
        assert self._tuner is not None
        around = self._around
        known = around.observed().generations.get(generation, Generation(generation))
        try:
            before = self._tuner.recall(around.observed().settings)
            tuned = self._tuner.tune(found.settings)
            pacing = tuned.pacing(self._environment(generation))
            change = self._tuner.compare(before, tuned)
            file = self.file(generation)
            file.write(_content(found.fd))
            version = file.version
        except OSError as error:
            raise UsageError(f"the configuration cannot be kept: {error.strerror}") from error
        finally:
            os.close(found.fd)
        self._application, workers = tuned.spec.application, tuned.spec.workers
        # By what is on record: a server that was killed may have written it, and told nobody.
        is_new = version != known.configuration
        was_heard = inquiry != 0 and known.inquiry is None and not is_new
        if not was_heard:
            around.post(
                ev.Configured(
                    generation,
                    is_new,
                    found.settings,
                    change.taken,
                    change.waiting,
                    change.overridden,
                    None if workers == before.spec.workers else workers,
                    pacing,
                    inquiry,
                    version,
                )
            )
        # After that is on record: a server that follows tells them all once more.
        around.tell(generation)
        return pacing

    def _environment(self, generation: int) -> Mapping[str, str]:
        try:
            return self._around.environments.of(generation)
        except OSError:  # it was lost with another server
            return os.environ


def _content(fd: int) -> bytes:
    """Raises OSError; UsageError when it is more than a fork server of ours sends."""
    size = os.fstat(fd).st_size
    if size > MAX_CONFIGURATION_BYTES:
        raise UsageError(
            f"the configuration is {size} bytes long, and may be no longer than "
            f"{MAX_CONFIGURATION_BYTES}; let workers read by themselves what is large"
        )
    return os.pread(fd, size, 0)


def tuned_spec(
    tuner: "Tuner | None", spec: ServiceSpec, settings: Mapping[str, Any]
) -> ServiceSpec:
    """The service as it is by what the configuration has said last."""
    return spec if tuner is None or not settings else tuner.recall(settings).spec


def find_tuner(boot: Boot) -> "Tuner | None":
    """None where there is no configuration."""
    application = boot.service.application
    if application is None or not application.is_configured:
        return None
    from sengu.config.tuning import Tuner  # memory, of those who have one only

    return Tuner(boot.service, boot.given)
