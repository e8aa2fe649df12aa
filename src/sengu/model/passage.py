"""How connections get from old sockets to new ones, where programs bind them by themselves."""

import enum

import msgspec


class Technique(enum.StrEnum):
    """What keeps new connections from the sockets of an old generation, and what becomes of those
    that wait there. `auto`: the first of the others that works.
    """

    AUTO = "auto"
    BPF = "bpf"
    SYSCTL = "sysctl"
    DUP = "dup"
    MEMBER = "member"
    NONE = "none"


class PassageStatus(msgspec.Struct, frozen=True):
    """An address that the programs bind themselves, by so many `sockets` when last looked at.

    `technique` is empty before the first worker listens. `remark` is what people should know.
    """

    address: str
    technique: str
    sockets: int
    remark: str = ""
