"""The settings of `sengu serve` about requests: times, limits, and whom to believe.

No logic lives here. Imported by `settings.serve`, config and cli.
"""

from sengu.config import kinds, web_kinds
from sengu.config.setting import Group, Setting
from sengu.model.web import Limits, Timeouts

_LIMITS = Limits()
_TIMEOUTS = Timeouts()

TIMEOUT: Setting[float] = Setting(
    name="timeout",
    kind=kinds.DURATION,
    default=30.0,
    group=Group.REQUESTS,
    help="Kill and replace a worker in which the application has been stuck in a request for so "
    "long, after its stacks were written to the log. 0: never.",
)
KEEP_ALIVE: Setting[float] = Setting(
    name="keep-alive",
    kind=kinds.DURATION,
    default=_TIMEOUTS.keep_alive_seconds,
    group=Group.REQUESTS,
    help="How long a connection may rest between two requests: longer than a load balancer keeps "
    "it, or that one meets closed connections.",
)
HEADER_TIMEOUT: Setting[float] = Setting(
    name="header-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=_TIMEOUTS.header_seconds,
    group=Group.REQUESTS,
    help="How long a client may take to send the head of a request.",
)
BODY_TIMEOUT: Setting[float] = Setting(
    name="body-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=_TIMEOUTS.body_seconds,
    group=Group.REQUESTS,
    help="The longest pause of a client that sends a body or takes a response.",
)

LIMIT_BODY: Setting[int | None] = Setting(
    name="limit-body",
    kind=kinds.SIZE,
    default=None,
    default_text="none",
    group=Group.LIMITS,
    help="The longest body of a request; a longer one is answered with 413.",
)
LIMIT_REQUEST_LINE: Setting[int] = Setting(
    name="limit-request-line",
    kind=kinds.SIZE,
    default=_LIMITS.request_line_bytes,
    group=Group.LIMITS,
    help="The longest first line of a request, which has the URL; a longer one is answered with "
    "414.",
)
LIMIT_REQUEST_FIELDS: Setting[int] = Setting(
    name="limit-request-fields",
    kind=kinds.POSITIVE_COUNT,
    default=_LIMITS.header_fields,
    group=Group.LIMITS,
    help="How many header fields a request may have; more are answered with 431.",
)
LIMIT_REQUEST_FIELD_SIZE: Setting[int] = Setting(
    name="limit-request-field-size",
    kind=kinds.SIZE,
    default=_LIMITS.header_field_bytes,
    group=Group.LIMITS,
    help="The longest header field; a longer one is answered with 431.",
)
MAX_CONNECTIONS: Setting[int] = Setting(
    name="max-connections",
    kind=kinds.POSITIVE_COUNT,
    default=_LIMITS.connections,
    group=Group.LIMITS,
    help="How many connections a worker has at most; others wait in the backlog.",
)

TRUSTED_PROXY: Setting[tuple[str, ...]] = Setting(
    name="trusted-proxy",
    kind=web_kinds.PROXY,
    default=(),
    repeatable=True,
    group=Group.PROXIES,
    help="Believe what a proxy in this network says about the client (X-Forwarded-*, Forwarded): "
    "127.0.0.1, 10.0.0.0/8; or one that comes over a UNIX socket: unix. May be given several "
    "times.",
)
PROXY_PROTOCOL: Setting[bool] = Setting(
    name="proxy-protocol",
    kind=kinds.FLAG,
    default=False,
    group=Group.PROXIES,
    help="Trusted proxies begin each connection with a PROXY header, version 1 or 2.",
)
TLS_CERT: Setting[str | None] = Setting(
    name="tls-cert",
    kind=kinds.FILE,
    default=None,
    group=Group.PROXIES,
    help="Speak TLS, with this certificate and those it is signed with (PEM).",
)
TLS_KEY: Setting[str | None] = Setting(
    name="tls-key",
    kind=kinds.FILE,
    default=None,
    default_text="in the certificate's file",
    group=Group.PROXIES,
    help="The certificate's private key (PEM, without a pass phrase).",
)
