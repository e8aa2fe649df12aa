"""The words of a report: what is asked for, what a check has found, and the whole as JSON has it.

Pure. docs/doctor.md has these structs for those who read the JSON: fields are only ever added.
"""

import enum

import msgspec

from sengu.model.passage import Technique


class State(enum.Enum):
    """Whether the thing that a check is named after can be used."""

    WORKS = "works"
    DOES_NOT = "does not"
    UNKNOWN = "unknown"


class Purpose(enum.Enum):
    """What the machine shall be good for."""

    SERVE = "serve"
    WORK = "work"
    START = "start"
    REUSEPORT = "reuseport"
    SELF_BOUND = "self-bound"
    CONTAINER = "container"


# What each technique comes to for programs that bind by themselves.
MEANINGS: dict[Technique, str] = {
    Technique.BPF: "a program in the kernel chooses among the sockets, and moves what waits in "
    "one that closes",
    Technique.SYSCTL: "the kernel moves what waits in a socket that closes (tcp_migrate_req)",
    Technique.DUP: "the program's sockets are copied, and stay open until they are empty",
    Technique.MEMBER: "sockets of sengu's own join those of the program, and keep their order",
    Technique.NONE: "a deploy may lose connections that wait to be accepted",
}


class Asked(msgspec.Struct, frozen=True):
    """What the report is to be about. `backlog` is the one to be used; None: the default. `engine`
    is what shall run containers; None: any will do.
    """

    purposes: tuple[Purpose, ...] = (Purpose.SERVE, Purpose.WORK, Purpose.START)
    backlog: int | None = None
    engine: str | None = None


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
    """All that was found. `missing` are the needs that are not met, each with its alternatives.

    `self_bound` is the technique that would be used for programs that bind by themselves.
    """

    version: str
    asked_for: tuple[Purpose, ...]
    fit: bool
    missing: tuple[tuple[str, ...], ...]
    checks: tuple[Row, ...]
    self_bound: Technique
