"""What server and fork server say to each other: one JSON object a packet, descriptors beside it.

The socket is a SOCK_SEQPACKET pair, so each message arrives whole and in order. VERSION goes into
the first message: a fork server that was started after an upgrade refuses what it does not know.
"""

from typing import Any

import msgspec

from sengu.model.application import Application

VERSION = 1

# The server reads what is found, and all of it fits a packet with what else is said.
MAX_CONFIGURATION_BYTES = 16 << 20
MAX_SETTINGS_BYTES = 32 << 10


class Load(msgspec.Struct, frozen=True, tag="load"):
    """To the fork server, first of all. Descriptors: the scoreboard's memory; the memory file that
    workers find their configuration in, if the application has one, which is to be read; that is
    the answer to `inquiry` too, unless that is 0; and that of obituaries, if it reads them.
    """

    application: Application
    service: str
    generation: int
    version: int = VERSION
    inquiry: int = 0


class Fork(msgspec.Struct, frozen=True, tag="fork", omit_defaults=True):
    """To the fork server: a worker is wanted. That it lives the supervisor is told, by `key`.

    Descriptors: what the worker's descriptors `targets` are to be, and, if it `enters_cgroup`, the
    `cgroup.procs` (cgroups(7)) to which it writes `0` once it is ready. `line` is its first line of
    the scoreboard. Numbers of workers grow, so one that was seen already was sent twice: by a
    server that could not know whether its predecessor had.
    """

    worker: int
    key: str
    slot: int
    notify_socket: str
    line: int
    targets: tuple[int, ...]
    enters_cgroup: bool = False


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """To the fork server: read the configuration anew. Inquiries grow, as workers do."""

    inquiry: int


class Amend(msgspec.Struct, frozen=True, tag="amend"):
    """To the fork server: from now on workers are born for this application, of which no more has
    changed than workers look at.
    """

    application: Application


class Loaded(msgspec.Struct, frozen=True, tag="loaded", omit_defaults=True):
    """From the fork server: workers can be forked. `warnings` are for people, a line each.

    `settings`, `inquiry` and the descriptor, if there is one: as in `Configured`.
    """

    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    inquiry: int = 0


class Configured(msgspec.Struct, frozen=True, tag="configured"):
    """From the fork server: the configuration was read. Descriptor: a memory file that has it, as
    JSON. `settings` are those of its values that the server is to know.
    """

    inquiry: int
    settings: dict[str, Any]


class ConfigureFailed(msgspec.Struct, frozen=True, tag="configure_failed"):
    """From the fork server: it cannot be read, or not be handed to workers."""

    inquiry: int
    problem: str
    details: str = ""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """From the fork server: it is of no use. `details` is the application's traceback."""

    problem: str
    details: str = ""


class ForkFailed(msgspec.Struct, frozen=True, tag="fork_failed"):
    """From the fork server: no process came to be."""

    worker: int
    problem: str


ToForkServer = Load | Fork | Configure | Amend
FromForkServer = Loaded | LoadFailed | ForkFailed | Configured | ConfigureFailed

encode = msgspec.json.encode
decode_order = msgspec.json.Decoder(ToForkServer).decode
decode_report = msgspec.json.Decoder(FromForkServer).decode
