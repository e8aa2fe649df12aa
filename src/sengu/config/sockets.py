"""Checks of the listeners as a set: none twice, descriptors that can be had, the backlog.

Imported by config. Whether an address can be bound is found out by binding it.
"""

import os
import resource
from collections.abc import Mapping, Sequence

from sengu.errors import UsageError
from sengu.model.address import InetAddress, ListenerSpec, Sockets, UnixAddress

_SOMAXCONN = "/proc/sys/net/core/somaxconn"
_SOMAXCONN_SINCE_5_4 = 4096
_FDS_WITH_A_MEANING = (1, 2)
_FDS_TO_PLACE_OTHERS = 64  # each of a worker's is first copied above the highest of them


def default_backlog() -> int:
    """What the kernel allows at most (listen(2)); more would be cut down to it."""
    try:
        with open(_SOMAXCONN, encoding="ascii") as stream:
            return int(stream.read())
    except OSError:  # no /proc: in a chroot, for one
        return _SOMAXCONN_SINCE_5_4


def check_listeners(given: Mapping[str, Sequence[ListenerSpec]]) -> None:
    """Refuse what cannot be had together; `given` is by option. Raises UsageError."""
    seen = set[object]()
    for option, listeners in given.items():
        for spec in listeners:
            identity = _identity(spec)
            if identity in seen:
                raise UsageError(f"{option} {spec.address} is given twice; drop one of them")
            if identity is not None:
                seen.add(identity)
        _check_descriptors([spec for spec in listeners if spec.fixed_fd is not None])


def check_reuseport(sockets: Sockets) -> None:
    """Refuse listeners of which there can be no group. Raises UsageError.

    Those that were passed to us are one socket each, and stay shared.
    """
    if not sockets.reuseport:
        return
    for spec in sockets.listeners:
        if isinstance(spec.address, UnixAddress):
            raise UsageError(
                f"--reuseport is for TCP and UDP, and {spec.address} is a UNIX socket, of which "
                "the kernel makes no group; leave out --reuseport, or listen on a port instead"
            )
    if not sockets.listeners and not sockets.inherited:
        raise UsageError("--reuseport is of no use without a listener; add --port, or leave it out")


def _identity(spec: ListenerSpec) -> object:
    """Equal for two that would be bound to the same place; None if there is no such thing."""
    address = spec.address
    if isinstance(address, InetAddress):
        return address if address.port else None  # the kernel finds another port for each 0
    return address.path if address.is_abstract else os.path.abspath(address.path)


def _check_descriptors(listeners: Sequence[ListenerSpec]) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked: dict[int, ListenerSpec] = {}
    for spec in listeners:
        fd = spec.fixed_fd
        assert fd is not None
        where = f"--port {spec.key}={fd}"
        if fd in _FDS_WITH_A_MEANING:
            raise UsageError(f"{where}: descriptor {fd} is a worker's output; use 0, or 3 and up")
        if fd >= limit - _FDS_TO_PLACE_OTHERS:
            raise UsageError(
                f"{where}: descriptors end at {limit - 1} here, and the last "
                f"{_FDS_TO_PLACE_OTHERS} are needed to place the others; "
                "take a lower one or raise ulimit -n"
            )
        if fd in asked:
            raise UsageError(f"{where}: {asked[fd].key} is to get descriptor {fd} too; use another")
        asked[fd] = spec
