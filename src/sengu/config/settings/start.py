"""The settings of `sengu start`: its own here, and those of `settings.common`. No logic lives here.

Those that Server::Starter has too carry its names and its meaning. Imported by config and cli.
"""

from typing import Any

from sengu.config import kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.config.settings import common
from sengu.model.address import ListenerSpec
from sengu.model.passage import Technique
from sengu.model.service import OnServerLoss, Readiness

PORT: Setting[tuple[ListenerSpec, ...]] = Setting(
    name="port",
    kind=kinds.PORT,
    default=(),
    repeatable=True,
    group=Group.LISTENERS,
    help="Listen on this TCP port, of all IPv4 addresses or of HOST: 8080, 127.0.0.1:8080, "
    "[::1]:8080. With a u before the port, UDP: u8080. With =FD after it, workers find the "
    "socket at that descriptor too. May be given several times.",
)
PATH: Setting[tuple[ListenerSpec, ...]] = Setting(
    name="path",
    kind=kinds.SOCKET_PATH,
    default=(),
    repeatable=True,
    group=Group.LISTENERS,
    help="Listen on this UNIX socket; @NAME is one in the abstract namespace. A socket file that "
    "nobody listens on any more is replaced. May be given several times.",
)
SELF_BOUND: Setting[tuple[str, ...]] = Setting(
    name="self-bound",
    kind=kinds.SELF_BOUND,
    default=(),
    repeatable=True,
    group=Group.LISTENERS,
    help="The program binds this TCP port itself, with SO_REUSEPORT: 8080 is that of all IPv4 "
    "addresses (0.0.0.0), else as in 127.0.0.1:8080, [::]:8080. A worker is ready when it listens "
    "there and for --interval opens no more sockets. In a deploy, connections are led to the new "
    "generation before the old one is stopped. May be given several times.",
)
TECHNIQUE: Setting[str] = Setting(
    name="technique",
    kind=kinds.choice("technique", [one.value for one in Technique]),
    default=Technique.AUTO.value,
    group=Group.LISTENERS,
    help="How --self-bound leads connections. auto: the first of the others that works here. bpf: "
    "a program in the kernel, needs CAP_BPF. sysctl: net.ipv4.tcp_migrate_req. dup: copies of the "
    "old sockets, needs no privilege. member: sockets beside them. none: not at all.",
)
SET_SYSCTL: Setting[bool] = Setting(
    name="set-sysctl",
    kind=kinds.FLAG,
    default=False,
    group=Group.LISTENERS,
    help="Set net.ipv4.tcp_migrate_req to 1 at the start, for the whole network namespace, and "
    "leave it so. Needs CAP_NET_ADMIN.",
)
WORKERS: Setting[int] = Setting(
    name="workers",
    short="-w",
    kind=kinds.WORKERS,
    default=1,
    effect=Effect.LIVE,
    group=Group.WORKERS,
    help="How many workers to run. `sengu scale` changes it.",
)
CONTAINER: Setting[str | None] = Setting(
    name="container",
    kind=kinds.TEXT,
    default=None,
    group=Group.CONTAINER,
    metavar="IMAGE",
    help="Each worker is a container of this image, with the host's network; what stands after -- "
    "are arguments for it. Its program listens by itself. It gets its stop signal and --grace, and "
    "is removed when it has ended.",
)
PULL: Setting[bool] = Setting(
    name="pull",
    kind=kinds.FLAG,
    default=False,
    group=Group.CONTAINER,
    help="Pull the image before each generation. If that fails, so does the deploy. Without it the "
    "image must be there.",
)
ENGINE: Setting[str | None] = Setting(
    name="engine",
    kind=kinds.ENGINE,
    default=None,
    default_text="podman, or docker where that is all there is",
    group=Group.CONTAINER,
    help="What runs containers: podman, docker, or a path to one. With options of its own: "
    "--engine 'podman --log-level=debug'.",
)
ENGINE_OPTION: Setting[tuple[str, ...]] = Setting(
    name="engine-option",
    kind=kinds.TEXT,
    default=(),
    repeatable=True,
    group=Group.CONTAINER,
    metavar="OPTION",
    help="An option for the engine's run, as in --engine-option=--memory=1g. May be given several "
    "times.",
)
ENV: Setting[tuple[str, ...]] = Setting(
    name="env",
    kind=kinds.TEXT,
    default=(),
    repeatable=True,
    group=Group.CONTAINER,
    metavar="NAME[=VALUE]",
    help="Pass a variable into the container: sengu's own, or with this value. What --envdir holds "
    "is passed in any case. May be given several times.",
)
WATCHDOG: Setting[float | None] = Setting(
    name="watchdog",
    kind=kinds.POSITIVE_DURATION,
    default=None,
    group=Group.WORKERS,
    help="Replace a worker that has not said WATCHDOG=1 to its NOTIFY_SOCKET for so long.",
)
READY: Setting[Readiness | None] = Setting(
    name="ready",
    kind=kinds.READINESS,
    default=None,
    default_text="delay:INTERVAL, of --interval",
    group=Group.READINESS,
    help="When a new worker is ready to serve. notify: it says READY=1 to its NOTIFY_SOCKET; tcp: "
    "it accepts a connection; http:PATH: it answers GET PATH with 2xx or 3xx; delay:SECONDS: it "
    "is still alive then, and the default of --ready-timeout is so much longer.",
)
SIGNAL_ON_HUP: Setting[int] = Setting(
    name="signal-on-hup",
    kind=kinds.SIGNAL,
    default=15,
    default_text="TERM",
    group=Group.STOPPING,
    help="Signal that asks workers to stop when a new generation has taken over. HUP to the "
    "main process is a deploy, hence the name.",
)
SIGNAL_ON_TERM: Setting[int] = Setting(
    name="signal-on-term",
    kind=kinds.SIGNAL,
    default=15,
    default_text="TERM",
    group=Group.STOPPING,
    help="Signal that asks workers to stop when all is stopped with TERM.",
)
ON_SERVER_LOSS: Setting[str] = Setting(
    name="on-server-loss",
    kind=kinds.choice("answer to the loss of the server", [one.value for one in OnServerLoss]),
    default=OnServerLoss.STOP.value,
    group=Group.STOPPING,
    help="What becomes of the workers when sengu's main process itself is killed with -9. stop: "
    "the kernel sends each its stop signal. keep: they go on serving, but nobody looks after them: "
    "end them yourself before the next start, as they have the listeners. Their stderr is not read "
    "by sengu then: the last words of a failed one are only where its output goes.",
)

SETTINGS: tuple[Setting[Any], ...] = collect(globals(), vars(common))
