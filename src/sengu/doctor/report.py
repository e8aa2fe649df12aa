"""The words of a report: what is asked for, what a check has found, and the whole as JSON has it.

Pure. docs/doctor.md has these structs for those who read the JSON: fields are only ever added.
"""

import enum

import msgspec


class State(enum.Enum):
    """Whether the thing that a check is named after can be used."""

    WORKS = "works"
    DOES_NOT = "does not"
    UNKNOWN = "unknown"


class Purpose(enum.Enum):
    """What the machine shall be good for."""

    SERVE = "serve"
    START = "start"
    REUSEPORT = "reuseport"
    SELF_BOUND = "self-bound"
    CONTAINER = "container"


class Rung(enum.Enum):
    """How connections are steered past a program that binds by itself; the best one first."""

    BPF = "bpf"
    SYSCTL = "sysctl"
    DUP = "dup"
    MEMBER = "member"
    NONE = "none"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Rung.BPF: "a program in the kernel chooses among the sockets, and moves what waits in one "
    "that closes",
    Rung.SYSCTL: "the kernel moves what waits in a socket that closes (tcp_migrate_req)",
    Rung.DUP: "copies of the program's sockets are taken, and emptied before they close",
    Rung.MEMBER: "a socket of sengu's own joins those of the program",
    Rung.NONE: "a deploy may lose the connections that wait to be accepted",
}


class Asked(msgspec.Struct, frozen=True):
    """What the report is to be about. `backlog` is the one to be used; None: the default."""

    purposes: tuple[Purpose, ...] = (Purpose.SERVE, Purpose.START)
    backlog: int | None = None


class Finding(msgspec.Struct, frozen=True):
    """What a check has found. `advice` is the next step, empty when there is nothing to do."""

    state: State
    fact: str
    advice: str = ""


class Row(msgspec.Struct, frozen=True):
    """A check and its finding.

    `needed_for` has those of the purposes asked for that need it, `alternatives` the names of the
    checks of which one has to work; it alone where there is no choice, none where it is not needed.
    """

    name: str
    state: State
    fact: str
    advice: str
    needed_for: tuple[Purpose, ...]
    alternatives: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """All that was found. `missing` are the needs that are not met, each with its alternatives."""

    version: str
    asked_for: tuple[Purpose, ...]
    fit: bool
    missing: tuple[tuple[str, ...], ...]
    checks: tuple[Row, ...]
    self_bound: Rung
