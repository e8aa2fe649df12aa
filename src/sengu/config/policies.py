"""From values to the spec: which settings make which policy, and what they must not contradict.

Pure. Imported by `config.assemble`.
"""

from collections.abc import Sequence

from sengu.config import settings as known
from sengu.config.setting import Values
from sengu.errors import UsageError
from sengu.model.service import (
    BootPolicy,
    ReadyAfterDelay,
    RestartPolicy,
    Rolling,
    ServiceSpec,
    StopPolicy,
    Strategy,
    Surge,
)

_READY_TIMEOUT_SECONDS = 60.0
_MIN_BACKOFF_SECONDS = 0.1


def service_spec(values: Values, name: str, command: Sequence[str]) -> ServiceSpec:
    """The spec of the service. Raises UsageError."""
    grace_seconds = values[known.GRACE]
    return ServiceSpec(
        name=name,
        command=tuple(command),
        workers=values[known.WORKERS],
        boot=_boot_policy(values),
        retire=StopPolicy(values[known.SIGNAL_ON_HUP], grace_seconds),
        stop=StopPolicy(values[known.SIGNAL_ON_TERM], grace_seconds),
        restart=_restart_policy(values),
        strategy=_strategy(values),
        watchdog_seconds=values[known.WATCHDOG],
    )


def _boot_policy(values: Values) -> BootPolicy:
    readiness = values[known.READY] or ReadyAfterDelay(values[known.INTERVAL])
    delay = readiness.seconds if isinstance(readiness, ReadyAfterDelay) else 0.0
    timeout = values[known.READY_TIMEOUT]
    if timeout is None:
        timeout = _READY_TIMEOUT_SECONDS + delay
    if timeout <= delay:
        raise UsageError(
            f"--ready-timeout {timeout:g} s ends before a worker can be ready: that takes "
            f"{delay:g} s; give a longer timeout, or a shorter --ready delay or --interval"
        )
    return BootPolicy(readiness, timeout, values[known.ATTEMPTS])


def _restart_policy(values: Values) -> RestartPolicy:
    # Without a floor `--interval 0` would have a broken program started as fast as it can die.
    backoff = max(values[known.INTERVAL], _MIN_BACKOFF_SECONDS)
    longest = max(backoff, RestartPolicy(backoff).backoff_max_seconds)
    return RestartPolicy(backoff_seconds=backoff, backoff_max_seconds=longest)


def _strategy(values: Values) -> Strategy:
    if values[known.STRATEGY] != "rolling":
        for setting in (known.MAX_SURGE, known.MAX_UNAVAILABLE):
            if values.has(setting):
                raise UsageError(f"{setting.flag} is for --strategy rolling; add that or leave it")
        return Surge()
    surge, unavailable = values[known.MAX_SURGE], values[known.MAX_UNAVAILABLE]
    if surge == 0 and unavailable == 0:
        raise UsageError(
            "--max-surge 0 with --max-unavailable 0 leaves no room to replace a worker; "
            "allow one of them at least 1"
        )
    return Rolling(surge, unavailable)
