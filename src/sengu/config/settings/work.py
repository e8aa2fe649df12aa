"""The settings of `sengu work` that are about worker classes.

Those of any application are in `settings.application`, those of any service in `settings.common`.
No logic lives here. Imported by config and cli.
"""

from typing import Any

from sengu.config import kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.config.settings import application, common
from sengu.model.work import LogForm, WorkKind

KIND: Setting[str] = Setting(
    name="kind",
    kind=kinds.choice("kind of worker", [one.value for one in WorkKind], "KIND"),
    default=WorkKind.PROCESS.value,
    group=Group.APPLICATION,
    help="process: each worker is a forked process. thread: --workers threads in one process. "
    "async: a process whose `run` is a coroutine. spawn: a process that runs the program which "
    "`command` names. embedded: in this process, in the foreground, for debuggers.",
)
SERVER: Setting[str | None] = Setting(
    name="server",
    kind=kinds.TEXT,
    default=None,
    default_text="none",
    group=Group.APPLICATION,
    metavar="MODULE:CLASS",
    help="A subclass of sengu.Server: what all workers share is opened there, before they are "
    "forked, and workers find it as self.server.",
)
CONFIG: Setting[str | None] = Setting(
    name="config",
    kind=kinds.CONFIG,
    default=None,
    default_text="an empty one",
    group=Group.APPLICATION,
    help="What workers find as self.config: a file (.toml, .json, .yaml), or what a function "
    "returns. Read for each generation, and again by `sengu configure`, without a restart.",
)
COMMAND_PIPE: Setting[bool] = Setting(
    name="command-pipe",
    kind=kinds.FLAG,
    default=False,
    group=Group.APPLICATION,
    help="With --kind spawn: tell the program to stop or reload by a line on its stdin, such as "
    "GRACEFUL_STOP, and not by a signal.",
)
WORKERS: Setting[int] = Setting(
    name="workers",
    short="-w",
    kind=kinds.WORKERS,
    default=1,
    effect=Effect.LIVE,
    group=Group.WORKERS,
    help="How many workers to run. `sengu scale` changes it, and the configuration may.",
)
HEARTBEAT_TIMEOUT: Setting[float] = Setting(
    name="heartbeat-timeout",
    kind=kinds.DURATION,
    default=180.0,
    group=Group.WORKERS,
    help="Replace a worker whose process does not run any more for so long, or that has called "
    "self.heartbeat() before and does not again. Its stacks are logged first. 0: never.",
)
LOG_LEVEL: Setting[str] = Setting(
    name="log-level",
    kind=kinds.choice("level", ["trace", "debug", "info", "warning", "error"], "LEVEL"),
    default="info",
    effect=Effect.LIVE,
    group=Group.FILES,
    help="What self.log writes: trace, debug, info, warning or error, and what is worse.",
)
LOG_FORMAT: Setting[str] = Setting(
    name="log-format",
    kind=kinds.choice("format", [one.value for one in LogForm], "FORMAT"),
    default=LogForm.TEXT.value,
    group=Group.FILES,
    help="How self.log writes: text, or json, an object a line.",
)

SETTINGS: tuple[Setting[Any], ...] = collect(globals(), vars(application), vars(common))
