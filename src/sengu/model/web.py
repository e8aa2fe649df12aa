"""A web application's options, as data: filled in by the command line, read by the web engine."""

import enum

import msgspec


class Interface(enum.StrEnum):
    """How server and application talk: PEP 3333, or ASGI 3."""

    AUTO = "auto"
    WSGI = "wsgi"
    ASGI = "asgi"


class Limits(msgspec.Struct, frozen=True):
    """What a client may send; beyond it is 414, 431 or 413. `connections` is per worker."""

    request_line_bytes: int = 8190
    header_fields: int = 100
    header_field_bytes: int = 8190
    body_bytes: int | None = None
    connections: int = 10_000


class Timeouts(msgspec.Struct, frozen=True):
    """How long a client may take.

    `header_seconds` is from the first byte of a request (or the accept) to the end of its head;
    `body_seconds` the longest pause while a body is read or a response written;
    `keep_alive_seconds` the longest rest between two requests.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive_seconds: float = 90.0


class Tls(msgspec.Struct, frozen=True):
    """PEM files. The key may be in the certificate's file."""

    certificate: str
    key: str | None = None


class AccessLog(msgspec.Struct, frozen=True):
    """`path` is absolute, or `-` for stdout; `form` is common, combined or json."""

    path: str
    form: str = "combined"


class WebOptions(msgspec.Struct, frozen=True):
    """`target` is `module:attribute` or `module:factory()`.

    `trusted_proxies` are networks in CIDR notation, and `unix` for peers on UNIX sockets: whose
    Forwarded and X-Forwarded-* fields are believed, and with `proxy_protocol` whose PROXY header.
    At `health_path` sengu answers itself whether the service takes requests.
    """

    target: str
    interface: Interface = Interface.AUTO
    threads: int = 1
    root_path: str = ""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    tls: Tls | None = None
    access_log: AccessLog | None = None
    debug: bool = False
    health_path: str | None = None
