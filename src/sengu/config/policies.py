"""Which settings of any service make which policy, and what they must not contradict.

Pure. Imported by `config.assemble` and `config.web`.
"""

from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.errors import UsageError
from sengu.model.service import (
    BootPolicy,
    Readiness,
    ReadyAfterDelay,
    RestartPolicy,
    Rolling,
    Strategy,
    Surge,
)

_READY_TIMEOUT_SECONDS = 60.0
_MIN_BACKOFF_SECONDS = 0.1


def boot_policy(values: Values, readiness: Readiness) -> BootPolicy:
    """How a worker comes to be ready. Raises UsageError."""
    delay = readiness.seconds if isinstance(readiness, ReadyAfterDelay) else 0.0
    timeout = values[common.READY_TIMEOUT]
    if timeout is None:
        timeout = _READY_TIMEOUT_SECONDS + delay
    if timeout <= delay:
        raise UsageError(
            f"--ready-timeout {timeout:g} s ends before a worker can be ready: that takes "
            f"{delay:g} s; give a longer timeout, or a shorter --ready delay or --interval"
        )
    return BootPolicy(readiness, timeout, values[common.ATTEMPTS])


def restart_policy(values: Values) -> RestartPolicy:
    """The back-off of workers that keep dying."""
    # Without a floor `--interval 0` would have a broken program started as fast as it can die.
    backoff = max(values[common.INTERVAL], _MIN_BACKOFF_SECONDS)
    longest = max(backoff, RestartPolicy(backoff).backoff_max_seconds)
    return RestartPolicy(backoff_seconds=backoff, backoff_max_seconds=longest)


def strategy(values: Values) -> Strategy:
    """How a new generation takes over. Raises UsageError."""
    if values[common.STRATEGY] != "rolling":
        for setting in (common.MAX_SURGE, common.MAX_UNAVAILABLE):
            if values.has(setting):
                raise UsageError(f"{setting.flag} is for --strategy rolling; add that or leave it")
        return Surge()
    surge, unavailable = values[common.MAX_SURGE], values[common.MAX_UNAVAILABLE]
    if surge == 0 and unavailable == 0:
        raise UsageError(
            "--max-surge 0 with --max-unavailable 0 leaves no room to replace a worker; "
            "allow one of them at least 1"
        )
    return Rolling(surge, unavailable)


def drain_seconds(values: Values, *, binds_itself: bool = False) -> float | None:
    """How long the queues of a worker may take to be empty, where it has any of its own.

    Raises UsageError.
    """
    if values[common.REUSEPORT] or binds_itself:
        return values[common.DRAIN]
    if values.has(common.DRAIN):
        raise UsageError(
            "--drain is for workers with sockets of their own; add --reuseport (or --self-bound, "
            "for sengu start), or leave it out"
        )
    return None
