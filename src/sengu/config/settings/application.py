"""The settings that `sengu serve` and `sengu work` share: of Python code that sengu loads, its
workers and whom they become. No logic lives here. Imported by config and cli.
"""

from typing import Any

from sengu.config import kinds, web_kinds
from sengu.config.setting import Group, Setting, collect
from sengu.model.application import Wear

_WEAR = Wear()

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
MAX_RSS: Setting[int | None] = Setting(
    name="max-rss",
    kind=kinds.SIZE,
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
    kind=kinds.PERCENT,
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

SETTINGS: tuple[Setting[Any], ...] = collect(globals())
