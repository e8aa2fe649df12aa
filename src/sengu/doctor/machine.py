"""The port through which checks look at a machine, and what goes through it.

Nothing is looked at here: `here.Here` is the machine that we run on, tests have written ones.
"""

import enum
from typing import NamedTuple, Protocol

from sengu.doctor.report import Finding, State


class Trial(enum.Enum):
    """What can be known only by doing it."""

    PIDFD = enum.auto()
    EPOLL = enum.auto()
    SUBREAPER = enum.auto()
    SOCK_DIAG = enum.auto()
    GETFD = enum.auto()
    BPF = enum.auto()
    STEERING = enum.auto()
    # Made such that the kernel refuses them for their arguments, if a filter lets them come so far.
    CALL_PIDFD_OPEN = enum.auto()
    CALL_PIDFD_GETFD = enum.auto()
    CALL_BPF = enum.auto()


class Refusal(NamedTuple):
    """How a trial failed. `number` is an errno, 0 when it was not the kernel that said no."""

    number: int
    words: str


class Ran(NamedTuple):
    """A command's exit status, None when it did not end in time, and its output."""

    status: int | None
    output: str
    errors: str = ""


class Machine(Protocol):
    """What a check may look at."""

    def read(self, path: str) -> str:
        """The text of a file. Raises OSError."""

    def exists(self, path: str) -> bool: ...

    def may_write(self, path: str) -> bool:
        """Whether we would be allowed to; nothing is written."""

    def attempt(self, trial: Trial) -> Refusal | None:
        """Do it, and undo it. None: it works."""

    def run(self, *command: str) -> Ran | None:
        """Run a command that only tells something. None: it is not installed."""

    def variable(self, name: str) -> str | None:
        """Of our environment."""

    def cgroups_refusal(self) -> str | None:
        """Why no cgroup can be made for each worker. None: they can."""


def status_field(machine: Machine, name: str) -> str | None:
    """A field of /proc/self/status (proc_pid_status(5)); None when the kernel has it not."""
    for line in machine.read("/proc/self/status").splitlines():
        label, _, value = line.partition(":")
        if label == name:
            return value.strip()
    return None


def release(machine: Machine) -> tuple[int, int]:
    """The kernel's version, as far as it says what there is: 5.10."""
    major, minor = machine.read("/proc/sys/kernel/osrelease").split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return int(major), int(digits or 0)


def user(machine: Machine) -> int:
    """The effective user id."""
    return int((status_field(machine, "Uid") or "0 0").split()[1])


_CAPABILITIES = {  # linux/capability.h
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_BPF": 39,
}


def capabilities(machine: Machine) -> dict[str, bool]:
    """Those that matter to us, and whether they are in effect."""
    mask = int(status_field(machine, "CapEff") or "0", 16)
    return {name: bool(mask >> number & 1) for name, number in _CAPABILITIES.items()}


def tried(refusal: Refusal | None, fact: str, advice: str) -> Finding:
    """The finding of a trial. One that was not ended by the kernel's word tells nothing."""
    if refusal is None:
        return Finding(State.WORKS, fact)
    state = State.DOES_NOT if refusal.number else State.UNKNOWN
    return Finding(state, refusal.words, advice)
