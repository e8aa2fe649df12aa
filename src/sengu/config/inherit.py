"""Listeners that were passed to us: by systemd (sd_listen_fds(3)) or by a Server::Starter.

Both say in the environment which descriptors they are. Another sengu says it in both ways, so the
same socket may be named twice. Looks at the descriptors, changes none. Imported by
config and `cli.become`.
"""

import os
import socket
import stat
from collections.abc import Mapping

from sengu.errors import UsageError
from sengu.model.address import Inherited, ListenerSpec, parse_path, parse_port

# What our starter told us about our listeners. It is not for our workers: they get their own.
STARTER_VARIABLES = (
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
)
_FIRST_FD = 3  # SD_LISTEN_FDS_START


def named_descriptors(environ: Mapping[str, str], pid: int) -> tuple[Inherited, ...]:
    """All descriptors that the environment names, as it names them. Raises UsageError."""
    named = [*_from_systemd(environ, pid), *_from_server_starter(environ)]
    for inherited, variable in named:
        _check_socket(inherited.fd, variable)
    return tuple(inherited for inherited, _ in named)


def distinct_sockets(named: tuple[Inherited, ...]) -> tuple[Inherited, ...]:
    """One descriptor for each socket: the first that names it."""
    found: dict[int, Inherited] = {}
    for inherited in named:
        found.setdefault(os.fstat(inherited.fd).st_ino, inherited)
    return tuple(found.values())


def is_stream(fd: int) -> bool:
    """Whether connections can be made to that socket."""
    with socket.socket(fileno=os.dup(fd)) as copy:
        return copy.type == socket.SOCK_STREAM


def _from_systemd(environ: Mapping[str, str], pid: int) -> list[tuple[Inherited, str]]:
    if environ.get("LISTEN_PID") != str(pid):  # meant for another process, or for nobody
        return []
    count = _descriptor("LISTEN_FDS", environ.get("LISTEN_FDS", ""))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))  # as sd_listen_fds_with_names(3) has it
    return [
        (Inherited(_FIRST_FD + index, names[index] or "unknown"), "LISTEN_FDS")
        for index in range(count)
    ]


def _from_server_starter(environ: Mapping[str, str]) -> list[tuple[Inherited, str]]:
    variable = "SERVER_STARTER_PORT"
    found = []
    for entry in filter(None, environ.get(variable, "").split(";")):
        key, _, number = entry.rpartition("=")
        name = _listener(key, entry).name
        found.append((Inherited(_descriptor(variable, number), name), variable))
    return found


def _listener(key: str, entry: str) -> ListenerSpec:
    try:
        return parse_path(key) if "/" in key or key.startswith("@") else parse_port(key)
    except UsageError:
        raise UsageError(
            f"SERVER_STARTER_PORT holds {entry!r} where ADDRESS=FD is due; "
            "unset SERVER_STARTER_PORT if no starter has passed you a listener"
        ) from None


def _descriptor(variable: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 7:
        return int(text)
    raise UsageError(
        f"{variable} holds {text!r} where a number is due; "
        f"unset {variable} if no starter has passed you a listener"
    )


def _check_socket(fd: int, variable: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:  # not open
        is_socket = False
    if not is_socket:
        raise UsageError(
            f"{variable} names descriptor {fd}, which is no socket here; "
            f"unset {variable} if no starter has passed you a listener"
        )
