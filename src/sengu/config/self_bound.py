"""Programs that bind their addresses themselves: which, and what does not go with that.

Imported by `config.assemble`.
"""

import socket

import msgspec

from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.config.settings import start as known
from sengu.errors import UsageError
from sengu.model.address import InetAddress, SelfBound, UnixAddress, parse_port
from sengu.model.passage import Technique
from sengu.model.service import ReadyAfterDelay, ReadyByNotify

_FLAG = known.SELF_BOUND.flag


def self_bound(values: Values) -> SelfBound | None:
    """None when the service's listeners are ours, if it has any. Raises UsageError."""
    if not values.has(known.SELF_BOUND):
        for setting in (known.TECHNIQUE, known.SET_SYSCTL):
            if values.has(setting):
                raise UsageError(f"{setting.flag} is for {_FLAG}; add that or leave it out")
        return None
    if values[common.REUSEPORT]:
        raise UsageError(
            f"--reuseport has sengu bind the sockets, {_FLAG} the program; give one of them"
        )
    if values[common.STRATEGY] == "rolling":
        raise UsageError(
            f"--strategy rolling replaces workers one by one, and with {_FLAG} connections are led "
            "from all old ones to all new ones at once; leave out one of them"
        )
    addresses = _addresses(values)
    settle_seconds, says_ready = _readiness(values)
    return SelfBound(
        addresses,
        Technique(values[known.TECHNIQUE]),
        settle_seconds,
        says_ready,
        sets_sysctl=values[known.SET_SYSCTL],
    )


def _addresses(values: Values) -> tuple[InetAddress, ...]:
    addresses = tuple(_address(text) for text in values[known.SELF_BOUND])
    if len(set(addresses)) < len(addresses):
        raise UsageError(f"{_FLAG} names an address twice; drop one of them")
    for spec in values[known.PORT]:
        if spec.address in addresses:
            raise UsageError(
                f"--port {spec.key} would have sengu bind what {_FLAG} says the program binds; "
                "leave out one of them"
            )
    return addresses


def _address(text: str) -> InetAddress:
    label = f"{_FLAG} {text!r}"
    if text.startswith(("/", "./", "@", "unix:")):
        raise UsageError(
            f"{label} is a UNIX socket, of which the kernel lets only one be bound to a path; "
            "use --path, so that the program gets it from sengu"
        )
    try:
        spec = parse_port(text)
    except UsageError:
        raise UsageError(
            f"{label} is no address; write one of: 8080, 127.0.0.1:8080, [::1]:8080"
        ) from None
    address = spec.address
    assert not isinstance(address, UnixAddress)
    if address.udp or spec.fixed_fd is not None:
        raise UsageError(f"{label}: only TCP can be steered; write it as in {_FLAG} 8080")
    if address.port == 0:
        raise UsageError(f"{label}: the port must be the one that the program binds")
    return _resolved(label, address)


def _resolved(label: str, address: InetAddress) -> InetAddress:
    """By number: it has to be what the program binds, whatever names mean later."""
    family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
    try:
        found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise UsageError(
            f"{label}: the name does not resolve ({error.strerror}); write the address that the "
            "program binds"
        ) from error
    return msgspec.structs.replace(address, host=str(found[0][4][0]))


def _readiness(values: Values) -> tuple[float, bool]:
    """For how long no more sockets must come, and whether READY=1 must come too."""
    match values[known.READY]:
        case None:
            return values[common.INTERVAL], False
        case ReadyAfterDelay(seconds):
            return seconds, False
        case ReadyByNotify():
            return 0.0, True
        case _:
            raise UsageError(
                f"--ready tcp and http:PATH do not go with {_FLAG}: new workers get no connection "
                "before they are ready; use --ready notify or delay:SECONDS, or leave it out"
            )
