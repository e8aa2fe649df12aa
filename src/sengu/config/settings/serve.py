"""The settings of `sengu serve` that are about the application, its workers and its process.

Those about requests are in `settings.requests`, those of any service in `settings.common`. No logic
lives here. Imported by config and cli.
"""

from typing import Any

from sengu.config import kinds, web_kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.config.settings import common, requests
from sengu.model.address import ListenerSpec
from sengu.model.application import Wear
from sengu.model.web import AccessLog, Interface

_WEAR = Wear()

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
NO_PRELOAD: Setting[bool] = Setting(
    name="no-preload",
    kind=kinds.FLAG,
    default=False,
    group=Group.APPLICATION,
    help="Import the application in each worker, and not once for all: for one that starts "
    "threads or connects when it is imported. Takes more memory and time.",
)
HOOKS: Setting[str | None] = Setting(
    name="hooks",
    kind=web_kinds.MODULE,
    default=None,
    default_text="the application's own module",
    group=Group.APPLICATION,
    help="Module with before_fork, after_fork, worker_ready, request_timeout or worker_exit, "
    "functions that are called when that happens.",
)

RELOAD: Setting[bool] = Setting(
    name="reload",
    kind=kinds.FLAG,
    default=False,
    group=Group.DEVELOPMENT,
    help="Deploy when a source file changes, and show errors in the browser, those of the import "
    "included.",
)
RELOAD_DIR: Setting[tuple[str, ...]] = Setting(
    name="reload-dir",
    kind=kinds.DIRECTORY,
    default=(),
    default_text="the working directory",
    repeatable=True,
    group=Group.DEVELOPMENT,
    help="With --reload: where to look for changes. May be given several times.",
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
MAX_RSS: Setting[int | None] = Setting(
    name="max-rss",
    kind=web_kinds.SIZE,
    default=None,
    group=Group.RECYCLING,
    help="Replace a worker that keeps more memory than this.",
)
MAX_AGE: Setting[float | None] = Setting(
    name="max-age",
    kind=kinds.POSITIVE_DURATION,
    default=None,
    group=Group.RECYCLING,
    help="Replace a worker that is so old.",
)
JITTER: Setting[float] = Setting(
    name="jitter",
    kind=web_kinds.PERCENT,
    default=_WEAR.jitter,
    default_text=f"{_WEAR.jitter * 100:g}",
    group=Group.RECYCLING,
    help="By how much --max-requests and --max-age come earlier, at random, so that workers are "
    "not replaced together.",
)

USER: Setting[str | None] = Setting(
    name="user",
    kind=web_kinds.ACCOUNT,
    default=None,
    group=Group.FILES,
    help="Become this user before the application is imported. The server itself, which has bound "
    "the listeners, stays root.",
)
GROUP: Setting[str | None] = Setting(
    name="group",
    kind=web_kinds.ACCOUNT,
    default=None,
    default_text="that of --user",
    group=Group.FILES,
    help="Group of the workers.",
)
UMASK: Setting[int | None] = Setting(
    name="umask",
    kind=kinds.MODE,
    default=None,
    group=Group.FILES,
    help="What new files of the workers shall not permit, in octal.",
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

SETTINGS: tuple[Setting[Any], ...] = collect(globals(), vars(requests), vars(common))
