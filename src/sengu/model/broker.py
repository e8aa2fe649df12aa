"""The address of an AMQP broker, as a URL on the command line or in the environment.

Spelled as RabbitMQ has it (amqp://USER:PASSWORD@HOST:PORT/VHOST), and as Celery's users do, to whom
`//` at the end is the virtual host `/`. Nothing that is printed has the password.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from sengu.errors import UsageError

VARIABLE = "SENGU_BROKER"
DEFAULT = "amqp://guest:guest@localhost//"

_PORTS = {"amqp": 5672, "amqps": 5671}
_NEXT_ONE = re.compile(r"\s*,\s*(?=\w+://)")  # a password may have a comma
_BEFORE_HOST = re.compile(r"(?P<scheme>\w+://)?.*@", re.DOTALL)
_HOST = re.compile(r"[\w.:%-]+")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORM = "write amqp://USER:PASSWORD@HOST:PORT/VHOST"
_QUERIES = ("heartbeat", "cacertfile", "certfile", "keyfile", "server_name_indication")
_MAX_PORT = 65535
_MAX_HEARTBEAT = 65535


class Tls(msgspec.Struct, frozen=True):
    """Whom to trust, if not whom the system does; who we are; whose certificate it is to be."""

    ca_file: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


class Address(msgspec.Struct, frozen=True):
    """`heartbeat_seconds` is what the URL asks for, 0 for none."""

    host: str = "localhost"
    port: int = 5672
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    tls: Tls | None = None
    heartbeat_seconds: int | None = None

    def __str__(self) -> str:
        """The URL, without the password."""
        scheme = "amqp" if self.tls is None else "amqps"
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}@{host}:{self.port}/{vhost}"

    def __repr__(self) -> str:
        return f"Address({self})"


def parse_brokers(texts: Sequence[str], environ: Mapping[str, str]) -> tuple[Address, ...]:
    """What was given, or SENGU_BROKER, or a broker on this machine. Each text may have several
    URLs, with commas between them. Raises UsageError.
    """
    if texts:
        return tuple(one for text in texts for one in parse_broker("broker", text))
    return tuple(parse_broker(VARIABLE, environ.get(VARIABLE) or DEFAULT))


def parse_broker(label: str, text: str) -> tuple[Address, ...]:
    """All addresses in one text. Raises UsageError."""
    return tuple(_parse(label, url) for url in _NEXT_ONE.split(text.strip()))


def hidden(url: str) -> str:
    """A URL that may be wrong anywhere, without what may be its password."""
    return _BEFORE_HOST.sub(lambda match: f"{match['scheme'] or ''}…@", url, count=1)


def _parse(label: str, url: str) -> Address:
    said = f"{label} {hidden(url)!r}"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # which has a part of the URL in it
        raise UsageError(f"{said} {_why_unreadable(url)}") from None
    scheme = parts.scheme
    if scheme not in _PORTS:
        raise UsageError(f"{said} is no address of a broker; {_FORM}, or amqps:// for TLS")
    if parts.fragment or (host is None and "@" in url) or "@" in parts.path + parts.query:
        raise UsageError(f"{said} {_why_unreadable(url)}")
    if port == 0 or (host and not _HOST.fullmatch(host)):
        raise UsageError(f"{said} has no host and port that can be; {_FORM}")
    return Address(
        host=host or "localhost",
        port=port or _PORTS[scheme],
        user="guest" if parts.username is None else _decode(said, "user", parts.username),
        password=_password(said, parts.username, parts.password),
        vhost=_vhost(said, parts.path),
        **_options(said, parts.query, is_tls=scheme == "amqps"),
    )


def _why_unreadable(url: str) -> str:
    if "@" in url:
        return (
            "cannot be read; in a user or password, write / as %2F, @ as %40, # as %23, ? as %3F, "
            ": as %3A"
        )
    return f"cannot be read; {_FORM}, with a port up to {_MAX_PORT}"


def _password(said: str, user: str | None, password: str | None) -> str:
    if user is None:
        return "guest"
    if password is None:
        raise UsageError(f"{said} has a user and no password; {_FORM}")
    return _decode(said, "password", password)


def _vhost(said: str, path: str) -> str:
    if path in ("", "/", "//"):
        return "/"
    if "/" in path[1:]:
        raise UsageError(
            f"{said}: a / within the name of a virtual host is written as %2F, as in "
            f"/{quote(unquote(path[1:]), safe='')}"
        )
    return _decode(said, "virtual host", path[1:])


def _decode(said: str, part: str, text: str) -> str:
    if _STRAY_PERCENT.search(text):
        raise UsageError(f"{said}: a % in its {part} is written as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UsageError(f"{said}: its {part} is not UTF-8; percent-encode UTF-8") from None


def _options(said: str, query: str, *, is_tls: bool) -> dict[str, Any]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name not in _QUERIES:
            raise UsageError(f"{said} has ?{name}=, which is none of {', '.join(_QUERIES)}")
    heartbeat = found.pop("heartbeat", None)
    if found and not is_tls:
        raise UsageError(f"{said}: ?{next(iter(found))}= is for TLS; write amqps://")
    tls = Tls(*map(found.get, _QUERIES[1:])) if is_tls else None
    return {"tls": tls, "heartbeat_seconds": _heartbeat(said, heartbeat)}


def _heartbeat(said: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > _MAX_HEARTBEAT:
        raise UsageError(f"{said}: ?heartbeat={text} is not a number of seconds; 0 is none")
    return int(text)
