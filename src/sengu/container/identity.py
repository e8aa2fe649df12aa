"""Whose a container is, as its labels say: of which service, generation, slot and runner.

A runner's label names its pid namespace and its start too, so no other process is taken for it.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

SERVICE_LABEL = "sengu.service"
GENERATION_LABEL = "sengu.generation"
SLOT_LABEL = "sengu.slot"
RUNNER_LABEL = "sengu.runner"
_START_FIELD = 22 - 3  # of /proc/PID/stat, after the name in brackets (proc(5))


class Identity(NamedTuple):
    """`runner` is `NAMESPACE/PID/START`."""

    service: str
    generation: str
    slot: str
    runner: str

    @classmethod
    def of_process(cls, environ: Mapping[str, str]) -> "Identity":
        """Our own, by the variables of the worker's contract."""
        return cls(
            environ["SENGU_SERVICE"],
            environ["SENGU_GENERATION"],
            environ["SENGU_SLOT"],
            runner_label(os.getpid()),
        )

    @property
    def name(self) -> str:
        """The container's name, which may hold fewer signs than a service's (`[\\w.-]`).

        With the runner's pid: of one that is stopping, or was killed while it was made, the engine
        may know the name for long.
        """
        service = "".join(sign if _is_plain(sign) else "-" for sign in self.service)
        return f"sengu-{service}-g{self.generation}-s{self.slot}-{self.runner.split('/')[1]}"

    @property
    def labels(self) -> tuple[str, ...]:
        """As `NAME=VALUE`."""
        names = (SERVICE_LABEL, GENERATION_LABEL, SLOT_LABEL, RUNNER_LABEL)
        return tuple(f"{name}={value}" for name, value in zip(names, self, strict=True))


def runner_label(pid: int) -> str:
    """The label of a living process. Raises OSError, ProcessLookupError for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return f"{_namespace()}/{pid}/{fields[_START_FIELD]}"


def is_dead(label: str) -> bool:
    """Whether that runner has ended, as far as we can see: not into another pid namespace."""
    namespace, _, rest = label.partition("/")
    pid = rest.partition("/")[0]
    if namespace != _namespace() or not pid.isdecimal():
        return False
    try:
        return runner_label(int(pid)) != label
    except ProcessLookupError:
        return True


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _is_plain(sign: str) -> bool:
    return sign.isascii() and (sign.isalnum() or sign in "_.-")
