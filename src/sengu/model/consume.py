"""The options of queue consumers, as data: filled in by the command line, read by their engine."""

from sengu.model.work import WorkOptions

# How a worker exits when whoever tried again would find the same (sysexits.h): wrong credentials,
# a queue that is there already and is another one.
EX_CONFIG = 78


class ConsumeOptions(WorkOptions, frozen=True):
    """`target` is a module or `/path/script.py`, all consumers of which are run, or those `only`.

    `brokers` are URLs with passwords in them; without any, SENGU_BROKER counts when a worker is
    born. With `split` a process runs one consumer, by its slot. `share_threads` is a pool for all
    consumers of a process. `job_timeout_seconds` is of those that have none of their own.
    `connect_timeout_seconds` is how long to wait for the broker at start, None for ever.
    """

    brokers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    split: bool = False
    share_threads: int | None = None
    job_timeout_seconds: float | None = 600.0
    connect_timeout_seconds: float | None = None
    unsubscribed_seconds: float = 60.0
    declares: bool = True
    amqp_heartbeat_seconds: float = 60.0

    def __repr__(self) -> str:
        """Without passwords."""
        return f"ConsumeOptions({self.target!r})"
