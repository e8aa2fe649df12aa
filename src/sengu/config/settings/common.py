"""The settings that `sengu start` and `sengu serve` share. No logic lives here.

Those that Server::Starter has too carry its names and its meaning. Imported by config and cli, and
by the server through `config.pacing`.
"""

from typing import Any

from sengu.config import kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.model.address import Address
from sengu.model.service import SignalProfile, Urge

PATH_MODE: Setting[int] = Setting(
    name="path-mode",
    kind=kinds.MODE,
    default=0o777,
    default_text="777",
    group=Group.LISTENERS,
    help="Permissions of new socket files, in octal.",
)
BACKLOG: Setting[int | None] = Setting(
    name="backlog",
    kind=kinds.POSITIVE_COUNT,
    default=None,
    default_text="the kernel's net.core.somaxconn",
    group=Group.LISTENERS,
    help="How many connections may wait to be accepted on each listener.",
)
REUSEPORT: Setting[bool] = Setting(
    name="reuseport",
    kind=kinds.FLAG,
    default=False,
    group=Group.LISTENERS,
    help="A socket for each worker instead of one that all share (SO_REUSEPORT, socket(7)): the "
    "kernel spreads connections evenly, and only over workers that are ready. For TCP and UDP.",
)
ALLOW_LISTEN: Setting[tuple[Address, ...]] = Setting(
    name="allow-listen",
    kind=kinds.ALLOWED,
    default=(),
    repeatable=True,
    group=Group.LISTENERS,
    help="Workers that are another user than the server may ask for this socket too, which is then "
    "opened with the server's rights: 80, 127.0.0.1:80, [::1]:80, u53 (UDP), /run/app.sock, @NAME. "
    "What they could bind themselves needs no permission. May be given several times.",
)
DIR: Setting[str | None] = Setting(
    name="dir",
    kind=kinds.DIRECTORY,
    default=None,
    default_text="the current directory",
    group=Group.WORKERS,
    help="Working directory of the workers.",
)
ENVDIR: Setting[str | None] = Setting(
    name="envdir",
    kind=kinds.DIRECTORY,
    default=None,
    env="ENVDIR",
    group=Group.WORKERS,
    help="Directory of environment variables for the workers: a file for each, its first line is "
    "the value (as daemontools' envdir). Read anew for each generation.",
)
INTERVAL: Setting[float] = Setting(
    name="interval",
    kind=kinds.DURATION,
    default=1.0,
    group=Group.WORKERS,
    help="Least time between two starts of a worker that keeps dying; it doubles with each death.",
)
UNRECOVERABLE_EXIT_CODES: Setting[tuple[int, ...]] = Setting(
    name="unrecoverable-exit-codes",
    kind=kinds.EXIT_CODES,
    default=(),
    default_text="none",
    group=Group.WORKERS,
    help="A worker that exits with one of these (3,4) is not replaced, nor is a deploy tried again "
    "whose worker does. When no other is left, sengu ends too, and exits with that code.",
)
STOP_IMMEDIATELY_AT_UNRECOVERABLE_EXIT: Setting[bool] = Setting(
    name="stop-immediately-at-unrecoverable-exit",
    kind=kinds.FLAG,
    default=False,
    group=Group.WORKERS,
    help="Do not wait until no worker is left: the first such exit stops the others, which have "
    "--grace to finish.",
)
START_DELAY: Setting[float] = Setting(
    name="start-delay",
    kind=kinds.DURATION,
    default=0.0,
    group=Group.WORKERS,
    help="Start the workers of a generation so far apart; the first comes at once.",
)
START_JITTER: Setting[float] = Setting(
    name="start-jitter",
    kind=kinds.PERCENT,
    default=0.2,
    default_text="20",
    group=Group.WORKERS,
    help="By how much --start-delay varies, half of it either way.",
)
READY_TIMEOUT: Setting[float | None] = Setting(
    name="ready-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=None,
    default_text="60",
    group=Group.READINESS,
    help="A new worker that is not ready by then has failed.",
)
ATTEMPTS: Setting[int] = Setting(
    name="attempts",
    kind=kinds.POSITIVE_COUNT,
    default=3,
    group=Group.READINESS,
    help="How often workers of a new generation may fail before the deploy is given up and the "
    "old generation goes on.",
)
STRATEGY: Setting[str] = Setting(
    name="strategy",
    kind=kinds.STRATEGY,
    default="surge",
    group=Group.DEPLOYS,
    help="surge: all new workers come up beside the old ones, which then go. rolling: slot by "
    "slot, within --max-surge and --max-unavailable.",
)
MAX_SURGE: Setting[int] = Setting(
    name="max-surge",
    kind=kinds.COUNT,
    default=1,
    group=Group.DEPLOYS,
    help="rolling: how many workers there may be beyond --workers.",
)
MAX_UNAVAILABLE: Setting[int] = Setting(
    name="max-unavailable",
    kind=kinds.COUNT,
    default=0,
    group=Group.DEPLOYS,
    help="rolling: how many of --workers may be missing.",
)
PRE_DEPLOY: Setting[tuple[str, ...]] = Setting(
    name="pre-deploy",
    kind=kinds.TEXT,
    default=(),
    repeatable=True,
    group=Group.DEPLOYS,
    metavar="COMMAND",
    help="Run this before each generation, the first included: a migration, a pull. It is run "
    "without a shell, in --dir, and what it prints goes to the log. If it fails, so does the "
    "deploy, and the old generation goes on. May be given several times: one after the other.",
)
PRE_DEPLOY_TIMEOUT: Setting[float] = Setting(
    name="pre-deploy-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=600.0,
    group=Group.DEPLOYS,
    help="A --pre-deploy command that is not done by then is asked to stop, and has failed.",
)
KILL_OLD_DELAY: Setting[float | None] = Setting(
    name="kill-old-delay",
    kind=kinds.DURATION,
    default=None,
    default_text="5 with --enable-auto-restart, otherwise 0",
    effect=Effect.DEPLOY,
    env="KILL_OLD_DELAY",
    group=Group.DEPLOYS,
    help="How long the old workers go on beside the new ones before they are stopped.",
)
ENABLE_AUTO_RESTART: Setting[bool] = Setting(
    name="enable-auto-restart",
    kind=kinds.FLAG,
    default=False,
    effect=Effect.DEPLOY,
    env="ENABLE_AUTO_RESTART",
    group=Group.DEPLOYS,
    help="Deploy again and again, every --auto-restart-interval.",
)
AUTO_RESTART_INTERVAL: Setting[float] = Setting(
    name="auto-restart-interval",
    kind=kinds.DURATION,
    default=360.0,
    effect=Effect.DEPLOY,
    env="AUTO_RESTART_INTERVAL",
    group=Group.DEPLOYS,
    help="Time between two automatic deploys.",
)
GRACE: Setting[float] = Setting(
    name="grace",
    kind=kinds.DURATION,
    default=30.0,
    group=Group.STOPPING,
    help="How long a worker may take to stop; then it is killed.",
)
STOP_ESCALATION: Setting[tuple[Urge, ...]] = Setting(
    name="stop-escalation",
    kind=kinds.ESCALATION,
    default=(),
    default_text="none",
    group=Group.STOPPING,
    help="Further signals for a worker that is still there so long after its stop signal, before "
    "--grace is over and it is killed: TERM:10,QUIT:20.",
)
DRAIN: Setting[float] = Setting(
    name="drain",
    kind=kinds.DURATION,
    default=10.0,
    group=Group.STOPPING,
    help="Where workers have sockets of their own (--reuseport): how long clients may wait in the "
    "queues of one that is to go, before it is asked to stop all the same.",
)
LAME_DUCK: Setting[float] = Setting(
    name="lame-duck",
    kind=kinds.DURATION,
    default=0.0,
    group=Group.STOPPING,
    help="When told to stop, serve on for so long, and answer no already to whoever asks for "
    "readiness: `sengu status --ready`, --health-path of serve. So no client is sent any more when "
    "workers stop, for which they have --grace then. Being told again ends it.",
)
SIGNALS: Setting[str] = Setting(
    name="signals",
    kind=kinds.choice("signal profile", [profile.value for profile in SignalProfile]),
    default=SignalProfile.DEFAULT.value,
    group=Group.STOPPING,
    help="What signals to the main process mean. default: TERM lets the workers finish, QUIT does "
    "not; unicorn: the other way round, as Unicorn's users have it; serverengine: USR1, HUP and "
    "INT restart, as ServerEngine's users have it.",
)
CGROUPS: Setting[str] = Setting(
    name="cgroups",
    kind=kinds.choice("use of cgroups", ["auto", "off"]),
    default="auto",
    group=Group.STOPPING,
    help="What ends with a worker. auto: all that it has started, as it has a control group "
    "(cgroups(7)) of its own, where sengu may make one: as root, or in a unit with Delegate=pids. "
    "off, or where there is none: its process group, so that a daemon that has left that stays.",
)
PID_FILE: Setting[str | None] = Setting(
    name="pid-file",
    kind=kinds.FILE,
    default=None,
    group=Group.FILES,
    help="Keep the main process's pid in this file, locked while that lives.",
)
STATUS_FILE: Setting[str | None] = Setting(
    name="status-file",
    kind=kinds.FILE,
    default=None,
    group=Group.FILES,
    help="Keep a line GENERATION:PID for each worker in this file.",
)
LOG_FILE: Setting[str | None] = Setting(
    name="log-file",
    kind=kinds.FILE,
    default=None,
    default_text="standard error",
    group=Group.FILES,
    metavar="FILE | '| COMMAND'",
    help="Append what server and workers print to this file, or write it to this command, which "
    "is run without a shell.",
)
LOG_ROTATE_SIZE: Setting[int | None] = Setting(
    name="log-rotate-size",
    kind=kinds.SIZE,
    default=None,
    default_text="never",
    group=Group.FILES,
    help="Begin a new --log-file at the end of the line with which it has this size (64k, 100m, "
    "1g). The old one gets the moment as a suffix: FILE.20261127-013157.482, in UTC.",
)
LOG_ROTATE_AGE: Setting[float | None] = Setting(
    name="log-rotate-age",
    kind=kinds.POSITIVE_DURATION,
    default=None,
    default_text="never",
    group=Group.FILES,
    help="Begin a new --log-file whenever such a time has begun by the local clock: 1d at "
    "midnight, 1h with every hour.",
)
LOG_KEEP: Setting[int] = Setting(
    name="log-keep",
    kind=kinds.COUNT,
    default=5,
    group=Group.FILES,
    help="How many rotated files are kept; the oldest are removed.",
)
LOG_COMPRESS: Setting[bool] = Setting(
    name="log-compress",
    kind=kinds.FLAG,
    default=False,
    group=Group.FILES,
    help="Compress rotated files (gzip).",
)
LOG_FULL: Setting[str] = Setting(
    name="log-full",
    kind=kinds.choice("way to go on", ["drop", "wait"]),
    default="drop",
    group=Group.FILES,
    help="What happens to output that can not be written, or not fast enough. drop: it is lost, "
    "how many lines that were is logged, and workers are never held up; wait: workers wait in "
    "their next write, and nothing is lost.",
)
DAEMONIZE: Setting[bool] = Setting(
    name="daemonize",
    kind=kinds.FLAG,
    default=False,
    group=Group.FILES,
    help="Run in the background. The command returns once the first generation is ready, or with "
    "the reason why it is not. Needs --log-file.",
)
NAME: Setting[str | None] = Setting(
    name="name",
    kind=kinds.NAME,
    default=None,
    default_text="the current directory's name",
    group=Group.INSTANCE,
    help="Name of this instance, by which `sengu reload` and the others find it.",
)
CONTROL: Setting[str | None] = Setting(
    name="control",
    kind=kinds.FILE,
    default=None,
    default_text="NAME.sock in /run/sengu, $XDG_RUNTIME_DIR/sengu or /tmp/sengu-UID",
    group=Group.INSTANCE,
    metavar="PATH",
    help="Socket of the control API.",
)

SETTINGS: tuple[Setting[Any], ...] = collect(globals())
