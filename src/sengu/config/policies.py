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
    StartPolicy,
    StopPolicy,
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
    """The back-off of workers that keep dying, and who is not replaced. Raises UsageError."""
    codes = values[common.UNRECOVERABLE_EXIT_CODES]
    ends_at_once = values[common.STOP_IMMEDIATELY_AT_UNRECOVERABLE_EXIT]
    if ends_at_once and not codes:
        raise UsageError(
            f"{common.STOP_IMMEDIATELY_AT_UNRECOVERABLE_EXIT.flag} knows of no such exit; "
            f"add {common.UNRECOVERABLE_EXIT_CODES.flag} CODE, or leave it out"
        )
    # Without a floor `--interval 0` would have a broken program started as fast as it can die.
    backoff = max(values[common.INTERVAL], _MIN_BACKOFF_SECONDS)
    longest = max(backoff, RestartPolicy(backoff).backoff_max_seconds)
    return RestartPolicy(backoff, longest, final_codes=codes, ends_at_once=ends_at_once)


def start_policy(values: Values) -> StartPolicy:
    """How far apart workers start. Raises UsageError."""
    delay = values[common.START_DELAY]
    if values.has(common.START_JITTER) and not delay:
        raise UsageError("--start-jitter varies --start-delay; add that, or leave it out")
    return StartPolicy(delay, values[common.START_JITTER] if delay else 0.0)


def stop_policy(values: Values, number: int) -> StopPolicy:
    """How workers are asked to go whose stop signal is `number`. Raises UsageError."""
    grace, steps = values[common.GRACE], values[common.STOP_ESCALATION]
    if steps and steps[-1].after_seconds >= grace:
        last = steps[-1].after_seconds
        raise UsageError(
            f"--stop-escalation has a signal after {last:g} s, but workers are killed after "
            f"{grace:g} s; give a longer --grace, or the signal earlier"
        )
    return StopPolicy(number, grace, steps)


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
