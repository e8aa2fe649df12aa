"""Whose process is asking: of which generation's workers, if of any.

A worker is its session, and all that its processes have started below them: also what has gone into
a session of its own. Imported by `server.socket_manager`.
"""

import os
from collections.abc import Callable, Iterator, Mapping

from sengu.model.observed import Observed
from sengu.posix.procfs import parent_of

_MOST_ANCESTORS = 100
_WORKER, _FORK_SERVER = "worker", "forkserver"


class Askers:
    """`living` tells pids and keys of the supervisor's children, `observed` what workers are of."""

    def __init__(
        self,
        main_pid: int,
        living: Callable[[], Mapping[int, str]],
        observed: Callable[[], Observed],
    ) -> None:
        self._main_pid = main_pid
        self._living = living
        self._observed = observed

    def is_ours(self, pid: int) -> bool:
        """Whether it descends from the main process: that of a worker just born does already."""
        return self._main_pid in _ancestors(pid)

    def generation_of(self, pid: int) -> int | None:
        """None: of a worker that we do not know (yet, or any more), or of none."""
        living = self._living()
        for ancestor in _ancestors(pid):
            for leader in (ancestor, _session_of(ancestor)):
                if leader in living:
                    return self._generation(living[leader])
        return None

    def _generation(self, key: str) -> int | None:
        kind, _, rest = key.partition("/")
        number = rest.partition("/")[0]
        if kind == _FORK_SERVER:  # forkserver/GENERATION/TOKEN
            return int(number)
        if kind != _WORKER or not number.isdecimal():  # a step, the log command
            return None
        worker = self._observed().workers.get(int(number))
        return None if worker is None else worker.generation


def _ancestors(pid: int) -> Iterator[int]:
    """The process itself, its parent and so on."""
    for _ in range(_MOST_ANCESTORS):
        if pid <= 0:
            return
        yield pid
        pid = parent_of(pid)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it has ended
        return 0
