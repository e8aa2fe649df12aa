"""What server and supervisor say to each other: fields joined by NUL, the verb first.

The socket is a SOCK_SEQPACKET pair, one for each life of the server, so each message arrives whole
and in order, with its descriptors beside it. `sengu.supervisor.main` speaks the same without this
module; VERSION is in its first message, and a server speaks every version that a supervisor may
still have, as that one may be older.

A new server hears `Hello`, then a `Holding` for each name in the store, a `Child` for each process,
a `Signal` for each that no server has heard, and `Begin`. The rest comes and goes as it happens.
"""

import os
from collections.abc import Mapping
from typing import get_args

import msgspec

VERSION = 1


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Tag and fields, in this order, are the packet's. Empty ones at its end may be left out."""


class Hello(_Message, frozen=True, tag="hello"):
    """First of all. `is_trial`: a server beside this one is paused until this one is ready."""

    version: int
    main_pid: int
    is_trial: bool = False


class Holding(_Message, frozen=True, tag="held"):
    """In the store, in the order in which it was held. Descriptor: what is held, if it has one."""

    name: str
    note: str = ""


class Child(_Message, frozen=True, tag="child"):
    """A process that is not reaped; `status` (wait(2)) once it has ended. Descriptor: its pidfd."""

    key: str
    pid: int
    status: int | None = None


class Signal(_Message, frozen=True, tag="signal"):
    """A signal to the main pid; told to each new server again until one has said `Heard`.

    `serial` is greater than that of any before it: whoever wrote down what it means, and was killed
    before it has said so, is followed by one that can tell it from another of the same number.
    """

    number: int
    serial: int


class Begin(_Message, frozen=True, tag="begin"):
    """That was all there is."""


class Spawned(_Message, frozen=True, tag="spawned"):
    """It lives: asked for by `Spawn`, or forked by a fork server. Descriptor: its pidfd."""

    key: str
    pid: int


class Refused(_Message, frozen=True, tag="refused"):
    """No process came to be, or none that could be watched; `error` is the errno.

    EEXIST: one of that key has ended, and not gone yet.
    """

    key: str
    error: int


class Exited(_Message, frozen=True, tag="exited"):
    """It has ended; its number is its own until `Reap`. `status` as in wait(2)."""

    key: str
    status: int


class Gone(_Message, frozen=True, tag="gone"):
    """It is reaped, as `Reap` has asked, and nobody is left in its process group: the key is free.

    Until then the number means that group, and each new server hears of the `Child` again.
    """

    key: str


class Pause(_Message, frozen=True, tag="pause"):
    """An upgrade: change nothing any more, and say `Paused`."""


class Resume(_Message, frozen=True, tag="resume"):
    """The upgrade has failed, or could not begin: go on. `problem` is a line for people."""

    problem: str


class Spawn(_Message, frozen=True, tag="spawn"):
    """A process is wanted. Descriptors: the `Document` in a memory file, then its sources."""

    key: str


class Hold(_Message, frozen=True, tag="hold"):
    """To the store, in place of what has that name. Descriptor: what is to be held, if any.

    `beat` is not for the store but of the server's own life: a timer that it keeps winding up; when
    it has run down (is readable), the server is stuck, and killed.
    """

    name: str
    note: str = ""


class Drop(_Message, frozen=True, tag="drop"):
    """Out of the store."""

    name: str


class Reap(_Message, frozen=True, tag="reap"):
    """Let go of the process. One that has ended is reaped, and `Gone` says that all its group is.

    One that still lives is forgotten at once: it is reaped when it ends, and nobody is told.
    """

    key: str


class Heard(_Message, frozen=True, tag="heard"):
    """What that signal means is known, and outlives us."""

    number: int


class Notify(_Message, frozen=True, tag="notify"):
    """To the service manager (sd_notify(3)), which listens to the main pid only."""

    text: str


class Output(_Message, frozen=True, tag="output"):
    """Descriptor: what is to be the supervisor's stdout and stderr, and of all later servers."""


class Policy(_Message, frozen=True, tag="policy"):
    """How the processes are ended when the supervisor gives up."""

    signal: int
    grace_ms: int


class Ready(_Message, frozen=True, tag="ready"):
    """This server has adopted what there was."""


class Paused(_Message, frozen=True, tag="paused"):
    """Nothing changes any more."""


class End(_Message, frozen=True, tag="end"):
    """The service is over: exit with `code` when this server has exited."""

    code: int


class Upgrade(_Message, frozen=True, tag="upgrade"):
    """Follow yourself: execute the file anew, and start a new server beside this one."""


class Unknown(_Message, frozen=True, tag="?"):
    """Something that only a newer supervisor says. It does without being understood."""

    verb: str


FromSupervisor = (
    Hello
    | Holding
    | Child
    | Signal
    | Begin
    | Spawned
    | Refused
    | Exited
    | Gone
    | Pause
    | Resume
    | Unknown
)
ToSupervisor = (
    Spawn | Hold | Drop | Reap | Heard | Notify | Output | Policy | Ready | Paused | End | Upgrade
)


_HEARD = frozenset(kind.__struct_config__.tag for kind in get_args(FromSupervisor))


class Document(msgspec.Struct, frozen=True):
    """What to execute: goes with `Spawn`, in a memory file. `targets` are the numbers that the
    other descriptors beside it, in their order, get in the child; it has no others.

    With `names_listen_pid` the environment gets LISTEN_PID, which only the child knows. With
    `file_limit` its soft limit of open files is the one that the supervisor was started with, and
    not the hard one. `cgroup` is a `cgroup.procs` that the child enters if it can. Without a
    `death_signal` it is left alone when all others are ended, and outlives the supervisor.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    targets: tuple[int, ...]
    directory: str | None = None
    death_signal: int = 15
    names_listen_pid: bool = False
    file_limit: bool = False
    cgroup: str = ""


def encode_to(message: ToSupervisor) -> bytes:
    """What the server sends. Raises ValueError for a text with a NUL."""
    return _encode(message)


def encode_from(message: FromSupervisor) -> bytes:
    """What the supervisor sends."""
    return _encode(message)


def decode_from(packet: bytes) -> FromSupervisor:
    """What the server hears. Raises msgspec.ValidationError."""
    fields = _fields(packet)
    if fields[:1] and fields[0] not in _HEARD:
        return Unknown(fields[0])
    message: FromSupervisor = msgspec.convert(fields, FromSupervisor, strict=False)
    return message


def decode_to(packet: bytes) -> ToSupervisor:
    """What the supervisor hears. Raises msgspec.ValidationError."""
    message: ToSupervisor = msgspec.convert(_fields(packet), ToSupervisor, strict=False)
    return message


def encode_birth(key: str, pid: int) -> bytes:
    """What a fork server's process in between says of a worker before it exits.

    An application runs there: whom it names is believed to be its child only if it is.
    """
    return _join([key, str(pid)])


def encode_document(document: Document) -> bytes:
    """Raises ValueError for a text with a NUL."""
    variables = [f"{name}={value}" for name, value in document.environment.items()]
    return _join(
        [
            document.directory or "",
            str(document.death_signal),
            str(int(document.names_listen_pid)),
            ",".join(map(str, document.targets)),
            str(int(document.file_limit)),
            document.cgroup,
            str(len(document.argv)),
            *document.argv,
            *variables,
        ]
    )


def _encode(message: _Message) -> bytes:
    tag = message.__struct_config__.tag
    return _join([str(tag), *map(_text, msgspec.structs.astuple(message))])


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(int(value) if isinstance(value, bool) else value)


def _join(fields: list[str]) -> bytes:
    for field in fields:
        if "\0" in field:
            raise ValueError(f"a NUL within {field!r}")
    return b"\0".join(map(os.fsencode, fields))


def _fields(packet: bytes) -> list[str]:
    fields = [os.fsdecode(field) for field in packet.split(b"\0")]
    while fields and not fields[-1]:
        fields.pop()
    return fields
