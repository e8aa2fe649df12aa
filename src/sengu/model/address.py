"""Addresses that a listener can be bound to, and their spelling on the command line.

That of `--port` and `--path` is Server::Starter's: `8080`, `host:8080`, `[::1]:8080`, each with `u`
before the port for UDP and `=FD` after it to ask for a descriptor number. That of `--listen` has
streams only, and `unix:` before a path.
"""

import ipaddress
import re
from collections.abc import Mapping

import msgspec

from sengu.errors import UsageError
from sengu.model.passage import Technique

_PORT = re.compile(r"\s*(?P<udp>u?)(?P<port>\d{1,9})(?:\s*=\s*(?P<fd>\d{1,9}))?\s*")
_HOST_PORT = re.compile(
    r"\s*(?:\[\s*(?P<bracketed>[^\]\s]+)\s*\]|(?P<bare>[^\[\]\s]+))\s*:\s*"
    r"(?P<udp>u?)(?P<port>\d{1,9})(?:\s*=\s*(?P<fd>\d{1,9}))?\s*"
)
_PORT_FORMS = "8080, host:8080, [::1]:8080, u8080 (UDP), host:u8080; each may end in =FD"
_LISTEN_FORMS = "8000, HOST:8000, [::1]:8000, unix:/run/app.sock, unix:@name"
_ALLOWED_FORMS = "80, host:80, [::1]:80, u53 (UDP), host:u53, /run/app.sock, @name"
_MAX_PORT = 65535
_MAX_UNIX_PATH_BYTES = 107  # sun_path holds 108, the last one is NUL (unix(7))


class InetAddress(msgspec.Struct, frozen=True, tag="inet"):
    """A TCP or UDP address. `host` is a name, an IPv4 or an IPv6 address without brackets."""

    host: str
    port: int
    udp: bool = False
    ipv6: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.ipv6 else self.host
        return f"{host}:{self.port}{'/udp' if self.udp else ''}"


class UnixAddress(msgspec.Struct, frozen=True, tag="unix"):
    """A UNIX stream socket: a path, or with a leading `@` a name in the abstract namespace."""

    path: str

    @property
    def is_abstract(self) -> bool:
        return self.path.startswith("@")

    def __str__(self) -> str:
        return self.path


Address = InetAddress | UnixAddress


class ListenerSpec(msgspec.Struct, frozen=True):
    """A listener to be bound, or one that was passed in and is known by its address.

    `key` is the left side in SERVER_STARTER_PORT, `name` the entry in LISTEN_FDNAMES,
    `fixed_fd` the descriptor number that workers shall also find it at.
    """

    key: str
    name: str
    address: Address
    fixed_fd: int | None = None


class Inherited(msgspec.Struct, frozen=True):
    """A listener that our own manager passed to us: systemd, or another Server::Starter."""

    fd: int
    name: str


class SelfBound(msgspec.Struct, frozen=True):
    """What a service's programs bind by themselves, with SO_REUSEPORT.

    A worker has joined when no more sockets of it have come for `settle_seconds`; with `says_ready`
    it must have sent READY=1 too. `sets_sysctl`: tcp_migrate_req is turned on at the start.
    """

    addresses: tuple[InetAddress, ...]
    technique: Technique = Technique.AUTO
    settle_seconds: float = 1.0
    says_ready: bool = False
    sets_sysctl: bool = False


class Sockets(msgspec.Struct, frozen=True):
    """What to listen on. `path_mode` is given to new socket files.

    With `reuseport` each of `listeners` is a group of sockets, one for each slot. What is
    `self_bound` the programs bind themselves. What is `allowed` workers of any user may ask for.
    """

    listeners: tuple[ListenerSpec, ...] = ()
    inherited: tuple[Inherited, ...] = ()
    backlog: int = 4096
    path_mode: int = 0o777
    reuseport: bool = False
    self_bound: SelfBound | None = None
    allowed: tuple[Address, ...] = ()


def parse_port(text: str) -> ListenerSpec:
    """Read a `--port` value. Raises UsageError."""
    match = _PORT.fullmatch(text) or _HOST_PORT.fullmatch(text)
    if match is None:
        raise UsageError(f"--port {text!r} is not a port; write one of: {_PORT_FORMS}")
    return _inet_listener(f"--port {text!r}", match.groupdict(), _PORT_FORMS)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def parse_path(text: str, label: str = "--path") -> ListenerSpec:
    """Read a `--path` value, or a path that stands elsewhere. Raises UsageError."""
    return _unix_listener(label, text)


def parse_listen(text: str) -> ListenerSpec:
    """Read a `--listen` value. Raises UsageError."""
    scheme, colon, path = text.partition(":")
    if scheme == "unix" and colon:
        return _unix_listener("--listen unix:", path)
    if text.startswith(("/", "./", "@")):
        raise UsageError(f"--listen {text!r} is no address; for a UNIX socket write unix:{text}")
    match = _PORT.fullmatch(text.removeprefix(":")) or _HOST_PORT.fullmatch(text)
    if match is None or set("/*") & set(text):
        raise UsageError(f"--listen {text!r} is no address; write one of: {_LISTEN_FORMS}")
    if match["udp"] or match["fd"]:
        raise UsageError(
            f"--listen {text!r} asks for UDP or for a descriptor, which are for sengu start; "
            f"write one of: {_LISTEN_FORMS}"
        )
    return _inet_listener(f"--listen {text!r}", match.groupdict(), _LISTEN_FORMS)


def parse_allowed(text: str) -> Address:
    """Read an `--allow-listen` value. Raises UsageError."""
    path = text.removeprefix("unix:")
    if path.startswith(("/", "@")) or path != text:
        if not path.startswith(("/", "@")):
            raise UsageError(f"--allow-listen {text!r} is no absolute path; write it out")
        return _unix_listener("--allow-listen", path).address
    match = _PORT.fullmatch(text) or _HOST_PORT.fullmatch(text)
    if match is None or match["fd"]:
        raise UsageError(f"--allow-listen {text!r} is no address; write one of: {_ALLOWED_FORMS}")
    address = _inet_listener(f"--allow-listen {text!r}", match.groupdict(), _ALLOWED_FORMS).address
    assert isinstance(address, InetAddress)
    try:
        host = str(ipaddress.ip_address(address.host))
    except ValueError as error:
        raise UsageError(
            f"--allow-listen {text!r}: {address.host} is a name, and workers ask for addresses; "
            "write the address"
        ) from error
    return msgspec.structs.replace(address, host=host)


def _inet_listener(label: str, parts: Mapping[str, str | None], forms: str) -> ListenerSpec:
    port = int(parts["port"] or 0)
    if port > _MAX_PORT:
        raise UsageError(f"{label}: {port} is above {_MAX_PORT}, the highest port")
    host = parts.get("bracketed") or parts.get("bare")
    is_ipv6 = host is not None and ":" in host
    if is_ipv6 and not _is_ipv6(str(host)):
        raise UsageError(f"{label}: {host} is no IPv6 address; write one of: {forms}")
    address = InetAddress(
        host=host or "0.0.0.0",  # the peer binds IPv4 only when no host is given
        port=port,
        udp=bool(parts["udp"]),
        ipv6=is_ipv6,
    )
    key = str(port) if host is None else f"{f'[{host}]' if is_ipv6 else host}:{port}"
    fixed_fd = None if parts["fd"] is None else int(parts["fd"])
    return ListenerSpec(key, _listener_name(address), address, fixed_fd)


def _unix_listener(label: str, path: str) -> ListenerSpec:
    if not path or path == "@":
        raise UsageError(f"{label} is empty; name the socket file, or @NAME for an abstract one")
    if "\0" in path:
        raise UsageError(f"{label} {path!r} has a NUL in it; take it out")
    length = len(path.encode(errors="surrogateescape"))
    if length > _MAX_UNIX_PATH_BYTES:
        raise UsageError(
            f"{label} {path!r} is {length} bytes long; a socket's path has at most "
            f"{_MAX_UNIX_PATH_BYTES}: use a shorter one"
        )
    address = UnixAddress(path)
    return ListenerSpec(path, _listener_name(address), address)


def _listener_name(address: Address) -> str:
    """A name for LISTEN_FDNAMES, which is a list with colons between (sd_listen_fds(3))."""
    if isinstance(address, UnixAddress):
        return "unix-" + address.path.lstrip("@").rpartition("/")[2].replace(":", "-")
    kind = "udp" if address.udp else "tcp"
    return f"{kind}-{address.port}"
