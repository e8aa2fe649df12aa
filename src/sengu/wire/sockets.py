"""What a process of a worker asks the socket manager for, and what it is answered.

A connection to the name in SENGU_SOCKETS is for one packet of JSON each way; the socket comes
beside the answer (SCM_RIGHTS). docs/sockets.md says the same to programs in any language. Imported
by the server on one side and by `work.sockets` on the other.
"""

import ipaddress

import msgspec

from sengu.errors import UsageError
from sengu.model.address import Address, InetAddress, parse_path

VARIABLE = "SENGU_SOCKETS"

_MAX_PORT = 65535


class Tcp(msgspec.Struct, frozen=True, tag_field="listen", tag="tcp"):
    """A listener on an IPv4 or IPv6 address, which is no name."""

    port: int
    host: str = "0.0.0.0"


class Udp(msgspec.Struct, frozen=True, tag_field="listen", tag="udp"):
    """A bound socket, as `Tcp`."""

    port: int
    host: str = "0.0.0.0"


class Unix(msgspec.Struct, frozen=True, tag_field="listen", tag="unix"):
    """A UNIX stream listener: an absolute path, or `@NAME` in the abstract namespace."""

    path: str


class Given(msgspec.Struct, frozen=True, tag_field="answer", tag="socket"):
    """The socket is beside it. `address` is what it is bound to, with the port that was found."""

    address: str


class Refused(msgspec.Struct, frozen=True, tag_field="answer", tag="refused"):
    """There is none. `problem` is for people, `errno` what bind(2) has said, if it was asked."""

    problem: str
    errno: int = 0


Request = Tcp | Udp | Unix
Answer = Given | Refused

encode = msgspec.json.encode
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode


def address_of(request: Request) -> Address:
    """What is to be bound. Raises UsageError: a name is not resolved, and nothing is relative."""
    if isinstance(request, Unix):
        if not request.path.startswith(("/", "@")):
            raise UsageError(f"{request.path!r} is no absolute path; write it out, or use @NAME")
        return parse_path(request.path, "the path").address
    if not 0 <= request.port <= _MAX_PORT:
        raise UsageError(f"port {request.port} is none; use one from 0 to {_MAX_PORT}")
    try:
        host = ipaddress.ip_address(request.host)
    except ValueError as error:
        raise UsageError(
            f"{request.host!r} is no IPv4 or IPv6 address; resolve names before you ask"
        ) from error
    return InetAddress(
        str(host), request.port, udp=isinstance(request, Udp), ipv6=host.version == 6
    )
