"""A cgroup for each worker, cleared when its process group is gone.

So what a worker has started ends with it also when it has left that group. What an application
starts when it is imported lives with its generation. Where no cgroups can be made all of this does
nothing. Imported by `server.instance` and by those who have processes made or ended.
"""

import contextlib
import os
from collections.abc import Iterable

from sengu.config.boot import Boot
from sengu.posix.cgroups import Cgroups
from sengu.posix.loop import Loop

_FIRST_DELAY_SECONDS = 0.02
_LONGEST_DELAY_SECONDS = 5.0
_LAST_SECONDS = 1.0  # what those who are killed at the end of the service have to be gone


class WorkerCgroups:
    """Those of one instance, by key; a server that takes over finds them again by it."""

    def __init__(self, loop: Loop, cgroups: Cgroups | None) -> None:
        self._loop = loop
        self._cgroups = cgroups
        self._being_cleared: set[str] = set()

    def assign(self, key: str) -> str:
        """The `cgroup.procs` by which a process gets into those of `key`; empty if there is none.

        Those who are there already stay.
        """
        return "" if self._cgroups is None else self._cgroups.make(key)

    def open(self, key: str) -> int | None:
        """`assign` for a process that may not open it by itself: a descriptor to write `0` to."""
        path = self.assign(key)
        if path:
            with contextlib.suppress(OSError):  # it does without
                return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        return None

    def clear(self, key: str) -> None:
        """KILL who is left there, and give the place up once all are gone."""
        if self._cgroups is not None and key not in self._being_cleared:
            self._being_cleared.add(key)
            self._clear(key, _FIRST_DELAY_SECONDS)

    def clear_others(self, keys: Iterable[str]) -> None:
        """Clear all but these: another server may have ended before it could."""
        if self._cgroups is not None:
            for key in self._cgroups.others(keys):
                self.clear(key)

    def leave(self) -> None:
        """Let everybody stay, from now on and for good."""
        self._cgroups = None

    def close(self) -> None:
        """The service has ended: nobody stays. Waits, but not for long."""
        if self._cgroups is not None and not self._cgroups.remove_all():
            self._cgroups.kill_all(_LAST_SECONDS)
            self._cgroups.remove_all()

    def _clear(self, key: str, delay_seconds: float) -> None:
        if self._cgroups is None or self._cgroups.remove(key):
            self._being_cleared.discard(key)
            return
        self._cgroups.kill(key)
        longer = min(_LONGEST_DELAY_SECONDS, 2 * delay_seconds)
        self._loop.call_at(self._loop.now() + delay_seconds, lambda: self._clear(key, longer))


def generation_key(generation: int) -> str:
    """The cgroup of the generation's fork servers, and of workers before they are ready."""
    return f"generation/{generation}"


def find_cgroups(loop: Loop, boot: Boot, main_pid: int, is_new: bool) -> WorkerCgroups:
    """Those of an instance, where there can be any. `is_new`: what is found is left over."""
    found = Cgroups.find(boot.service.name, main_pid) if boot.makes_cgroups else ""
    if isinstance(found, str):  # why there can be none: so it is on most machines
        return WorkerCgroups(loop, None)
    if is_new:
        found.remove_leftovers()
    return WorkerCgroups(loop, found)
