"""What proxies say about a client, believed only from trusted networks.

Forwarded (RFC 7239), X-Forwarded-*, and the PROXY protocol's two versions
(haproxy.org/download/2.8/doc/proxy-protocol.txt). Pure: text and bytes in, names out. Used by
`connection`, `intake`, and the ASGI engine.
"""

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from sengu.http.head import Refusal, check_host

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1_MAX_BYTES = 107
_V1_START = b"PROXY "
_V2_HEAD = struct.Struct("!12sBBH")
_V2_MAX_BYTES = 1 << 12  # addresses and extensions; balancers send some hundred bytes
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_ADDRESSES = {0x11: (socket.AF_INET, "!4s4sHH"), 0x21: (socket.AF_INET6, "!16s16sHH")}

# All of these are possessive: what a client made up is looked at once.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+("?)')
_PAIR = re.compile(r'\s*+([A-Za-z0-9!#$%&\'*+.^_`|~-]++)=("(?:[^"\\]|\\.)*+"|[^";,\s]*+)\s*+')
_PORT = re.compile(r"[0-9]{1,5}")


class Peer(NamedTuple):
    """An address and a port as the environ has them; both are empty on UNIX sockets."""

    address: str = ""
    port: str = ""


class Forwarded(msgspec.Struct, frozen=True):
    """What trusted proxies say. None: they say nothing about it."""

    client: Peer | None = None
    scheme: str | None = None
    host: str | None = None


class ProxyHeader(msgspec.Struct, frozen=True):
    """A PROXY header of `consumed` bytes. `client` is None for the proxy's own health checks."""

    consumed: int
    client: Peer | None
    server: Peer | None


class Trust:
    """The networks of trusted proxies, and `unix` for peers on UNIX sockets."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises ValueError for what is no network."""
        names = tuple(networks)
        self.unix = UNIX in names
        self._networks: tuple[Network, ...] = tuple(
            ipaddress.ip_network(name, strict=False) for name in names if name != UNIX
        )

    def trusts(self, address: str) -> bool:
        """Whether a peer with this address is a trusted proxy; '' is one on a UNIX socket."""
        if not address:
            return self.unix
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:  # a name that a proxy made up: RFC 7239 §6.3
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)


def forwarded(trust: Trust, peer: str, fields: Mapping[str, str]) -> Forwarded:
    """What is believed of a request from `peer`; `fields` is an environ.

    The chain is read from its end: each proxy vouches for the address before its own, so the
    first one that is not trusted is the client, whatever it says itself.
    """
    if not trust.trusts(peer):
        return Forwarded()
    if "HTTP_FORWARDED" in fields:
        return _standard(trust, fields["HTTP_FORWARDED"])
    client = _rightmost(trust, _split(fields.get("HTTP_X_FORWARDED_FOR", "")))
    scheme = _last(fields.get("HTTP_X_FORWARDED_PROTO", "")).lower()
    host = _last(fields.get("HTTP_X_FORWARDED_HOST", ""))
    port = _last(fields.get("HTTP_X_FORWARDED_PORT", ""))
    if host and _PORT.fullmatch(port) and not re.search(r":[0-9]+\Z", host):
        default = {"http": "80", "https": "443"}.get(scheme)
        host = host if port == default else f"{host}:{port}"
    return Forwarded(client, scheme if scheme in ("http", "https") else None, _host(host))


def _split(value: str) -> list[str]:
    return [member.strip() for member in value.split(",") if member.strip()]


def _last(value: str) -> str:
    return (_split(value) or [""])[-1]


def _rightmost(trust: Trust, chain: list[str]) -> Peer | None:
    peer = None
    for member in reversed(chain):
        found = parse_node(member)
        if found is None:
            break
        peer = found
        if not trust.trusts(peer.address):
            break
    return peer


def _standard(trust: Trust, value: str) -> Forwarded:
    elements = [_pairs(one) for one in _split_quoted(value, ",") if one.strip()]
    client = scheme = host = None
    for element in reversed(elements):
        # What the proxy nearest to the client says, of those that are believed.
        scheme = element.get("proto", scheme)
        host = element.get("host", host)
        found = parse_node(element.get("for", ""))
        if found is None:
            break
        client = found
        if not trust.trusts(client.address):
            break
    scheme = scheme.lower() if scheme is not None else None
    return Forwarded(client, scheme if scheme in ("http", "https") else None, _host(host))


def _split_quoted(value: str, mark: str) -> list[str]:
    """The parts between marks that are not in quotes. A quote without an end is none, or who sends
    one would swallow what the proxies after him say."""
    plain = _QUOTED.sub(lambda one: "-" * len(one[0]) if one[1] else one[0], value)
    parts, at = [], 0
    for size in map(len, plain.split(mark)):
        parts.append(value[at : at + size])
        at += size + len(mark)
    return parts


def _pairs(element: str) -> dict[str, str]:
    found = {}
    for match in filter(None, map(_PAIR.fullmatch, _split_quoted(element, ";"))):
        name, text = match[1].lower(), match[2]
        if text.startswith('"'):
            text = re.sub(r"\\(.)", r"\1", text[1:-1])
        found[name] = text
    return found


def _host(text: str | None) -> str | None:
    """A host as one may be in a request, of which a proxy may say what it was told itself."""
    if not text:
        return None
    try:
        check_host(text)
    except Refusal:
        return None
    return text


def parse_node(text: str) -> Peer | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; None for anything else."""
    address, port = text, ""
    if text.startswith("["):
        address, _, after = text[1:].partition("]")
        port = after.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address)
    except ValueError:  # `unknown`, or a name that hides the address: RFC 7239 §6
        return None
    if "%" in address:  # a zone, which may be any text, and says nothing outside of its machine
        return None
    return Peer(address, port if _PORT.fullmatch(port) else "")


def parse_header(data: bytes) -> ProxyHeader | None:
    """The PROXY header that `data` begins with; None when more is to come; ValueError if none."""
    if data.startswith(V2_SIGNATURE):
        return _parse_v2(data)
    if V2_SIGNATURE.startswith(data) or _V1_START.startswith(data[: len(_V1_START)]):
        if len(data) < len(_V1_START) or V2_SIGNATURE.startswith(data):
            return None
        return _parse_v1(data)
    raise ValueError("no PROXY header")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX_BYTES)
    if end < 0:
        if len(data) >= _V1_MAX_BYTES:
            raise ValueError("the PROXY header is too long")
        return None
    parts = data[:end].decode("latin-1").split(" ")
    if parts[1] == "UNKNOWN":
        return ProxyHeader(end + 2, None, None)
    if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6"):
        raise ValueError("malformed PROXY header")
    client, server = parse_node(parts[2]), parse_node(parts[3])
    if client is None or server is None or not all(map(_PORT.fullmatch, parts[4:])):
        raise ValueError("malformed PROXY header")
    return ProxyHeader(end + 2, Peer(client.address, parts[4]), Peer(server.address, parts[5]))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD.size:
        return None
    _signature, command, family, length = _V2_HEAD.unpack_from(data)
    if command not in (_V2_LOCAL, _V2_PROXY) or length > _V2_MAX_BYTES:
        raise ValueError("malformed PROXY header")
    consumed = _V2_HEAD.size + length
    if len(data) < consumed:
        return None
    if command == _V2_LOCAL or family not in _V2_ADDRESSES:
        return ProxyHeader(consumed, None, None)
    kind, form = _V2_ADDRESSES[family]
    if length < struct.calcsize(form):
        raise ValueError("malformed PROXY header")
    source, target, source_port, target_port = struct.unpack_from(form, data, _V2_HEAD.size)
    return ProxyHeader(
        consumed,
        Peer(socket.inet_ntop(kind, source), str(source_port)),
        Peer(socket.inet_ntop(kind, target), str(target_port)),
    )
