"""The settings of `sengu consume` that are about queue consumers.

What it has of `sengu work` is in `settings.work`, what any application has in
`settings.application`, and any service in `settings.common`. No logic lives here. Imported by
config and cli.
"""

from typing import Any

from sengu.config import kinds
from sengu.config.setting import Effect, Group, Setting, collect
from sengu.config.settings import application, common, work
from sengu.model.broker import DEFAULT, VARIABLE, parse_broker
from sengu.model.consume import ConsumeOptions

_DEFAULTS = ConsumeOptions("")


def _parse_broker(label: str, text: str) -> str:
    """As it is, with all that is secret, once it is known to be one. Raises UsageError."""
    parse_broker(label, text)
    return text


BROKER: Setting[tuple[str, ...]] = Setting(
    name="broker",
    kind=kinds.Kind("URL of a broker", "URL", _parse_broker, ("amqp://", "amqps://")),
    default=(),
    default_text=DEFAULT,
    repeatable=True,
    env=VARIABLE,
    group=Group.QUEUES,
    help="amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS. Given several times, or "
    "several with commas between them: whichever answers first. Others on this machine can read "
    "a command line while it starts; they cannot read the variable.",
)
ONLY: Setting[tuple[str, ...]] = Setting(
    name="only",
    kind=kinds.NAME,
    default=(),
    default_text="all of the module",
    repeatable=True,
    group=Group.QUEUES,
    help="Run this consumer, by its name or its queue. May be given several times.",
)
SPLIT: Setting[bool] = Setting(
    name="split",
    kind=kinds.FLAG,
    default=False,
    group=Group.QUEUES,
    help="Each process runs one of the consumers, in turn, and not all of them. Needs as many "
    "--workers as there are consumers.",
)
SHARE_THREADS: Setting[int | None] = Setting(
    name="share-threads",
    kind=kinds.POSITIVE_COUNT,
    default=None,
    default_text="each consumer has its own",
    group=Group.QUEUES,
    help="So many threads for all consumers of a process together.",
)
JOB_TIMEOUT: Setting[float] = Setting(
    name="job-timeout",
    kind=kinds.DURATION,
    default=_DEFAULTS.job_timeout_seconds or 0.0,
    group=Group.QUEUES,
    help="A job of a consumer without a timeout of its own that takes longer has failed: its stack "
    "is logged, its process replaced, and the message tried again. 0: none.",
)
CONNECT_TIMEOUT: Setting[float | None] = Setting(
    name="connect-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=None,
    default_text="wait for it",
    group=Group.QUEUES,
    help="A worker that has not reached the broker for so long since its start has failed.",
)
SUBSCRIPTION_TIMEOUT: Setting[float] = Setting(
    name="subscription-timeout",
    kind=kinds.POSITIVE_DURATION,
    default=_DEFAULTS.unsubscribed_seconds,
    group=Group.QUEUES,
    help="Replace a worker that is not subscribed to its queues for so long.",
)
NO_DECLARE: Setting[bool] = Setting(
    name="no-declare",
    kind=kinds.FLAG,
    default=False,
    group=Group.QUEUES,
    help="Make no queue, exchange or binding; take them as they are.",
)
AMQP_HEARTBEAT: Setting[float] = Setting(
    name="amqp-heartbeat",
    kind=kinds.DURATION,
    default=_DEFAULTS.amqp_heartbeat_seconds,
    group=Group.QUEUES,
    help="How often the broker and a worker tell each other that they are there; a connection "
    "without is given up. ?heartbeat= in the URL counts more. 0: never.",
)
WORKERS: Setting[int] = Setting(
    name="workers",
    short="-w",
    kind=kinds.WORKERS,
    default=1,
    effect=Effect.LIVE,
    group=Group.WORKERS,
    help="How many processes, each with the consumers. `sengu scale` changes it, and the "
    "configuration may.",
)

SETTINGS: tuple[Setting[Any], ...] = collect(
    globals(),
    {"server": work.SERVER, "config": work.CONFIG, "heartbeat": work.HEARTBEAT_TIMEOUT},
    {"level": work.LOG_LEVEL, "format": work.LOG_FORMAT},
    vars(application),
    vars(common),
)
