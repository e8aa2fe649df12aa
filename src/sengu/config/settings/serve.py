"""The settings of `sengu serve` that are about a web application and its workers.

Those about requests are in `settings.requests`, those of any application in `settings.application`,
those of any service in `settings.common`. No logic
lives here. Imported by config and cli.
"""

from typing import Any

from sengu.config import kinds, web_kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.config.settings import application, common, requests
from sengu.model.address import ListenerSpec
from sengu.model.web import AccessLog, Interface

LISTEN: Setting[tuple[ListenerSpec, ...]] = Setting(
    name="listen",
    kind=kinds.LISTEN,
    default=(),
    default_text="127.0.0.1:8000, or the sockets that systemd has passed",
    repeatable=True,
    group=Group.LISTENERS,
    help="Listen there: 8000 and :8000 are this port of all IPv4 addresses, 127.0.0.1:8000 and "
    "[::1]:8000 of one; unix:/run/app.sock is a UNIX socket, unix:@NAME one in the abstract "
    "namespace. May be given several times.",
)
INTERFACE: Setting[str] = Setting(
    name="interface",
    kind=kinds.choice("interface", [one.value for one in Interface]),
    default=Interface.AUTO.value,
    group=Group.APPLICATION,
    help="How the application is called. auto: ASGI if it is asynchronous, otherwise WSGI.",
)
THREADS: Setting[int] = Setting(
    name="threads",
    kind=web_kinds.THREADS,
    default=1,
    group=Group.APPLICATION,
    help="How many requests of a WSGI application a worker handles at the same time.",
)
ROOT_PATH: Setting[str] = Setting(
    name="root-path",
    kind=web_kinds.PREFIX,
    default="",
    group=Group.APPLICATION,
    help="Where the application is mounted: SCRIPT_NAME of WSGI, root_path of ASGI.",
)
HEALTH_PATH: Setting[str | None] = Setting(
    name="health-path",
    kind=web_kinds.HEALTH_PATH,
    default=None,
    group=Group.READINESS,
    help="Answer requests for this path without the application, for balancers and probes: 200, "
    "and 503 as soon as the service was told to stop. They are neither counted nor logged.",
)

WORKERS: Setting[int | None] = Setting(
    name="workers",
    short="-w",
    kind=kinds.WORKERS,
    default=None,
    default_text="$WEB_CONCURRENCY, or the number of usable cores",
    effect=Effect.LIVE,
    group=Group.WORKERS,
    help="How many workers to run. `sengu scale` changes it.",
)

MAX_REQUESTS: Setting[int | None] = Setting(
    name="max-requests",
    kind=kinds.POSITIVE_COUNT,
    default=None,
    group=Group.RECYCLING,
    help="Replace a worker after so many requests. In all cases its successor comes first.",
)

ACCESS_LOG: Setting[str | None] = Setting(
    name="access-log",
    kind=kinds.FILE,
    default=None,
    default_text="none",
    group=Group.FILES,
    metavar="FILE",
    help="Write a line for each request to this file, or to standard output: -. USR1 opens the "
    "file anew.",
)
ACCESS_LOG_FORMAT: Setting[str] = Setting(
    name="access-log-format",
    kind=kinds.choice("format", ("common", "combined", "json"), "FORMAT"),
    default=AccessLog("-").form,
    group=Group.FILES,
    help="common and combined: as Apache's of that name; json: an object a line.",
)

SETTINGS: tuple[Setting[Any], ...] = collect(
    globals(), vars(requests), vars(application), vars(common)
)
