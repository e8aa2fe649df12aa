"""What a generation's environment decides about its pace: Server::Starter's three variables.

Pure: environment in, `Pacing` out. The server asks for each generation, after the envdir was read;
the command line asks once, to refuse a bad number before anything is started.
"""

from collections.abc import Mapping

from sengu.config.kinds import parse_duration, parse_flag
from sengu.config.settings.common import AUTO_RESTART_INTERVAL
from sengu.model.service import Pacing

_KILL_OLD_DELAY_WITH_AUTO_RESTART_SECONDS = 5.0


def pacing_from(environment: Mapping[str, str]) -> Pacing:
    """Read `KILL_OLD_DELAY`, `ENABLE_AUTO_RESTART` and `AUTO_RESTART_INTERVAL`.

    `environment` is merged already: a file in the envdir beats an option, which beats a variable.
    As in Server::Starter an empty delay is none, and an empty or zero interval is the default.
    Raises UsageError that names the variable.
    """
    restarts = parse_flag("ENABLE_AUTO_RESTART", environment.get("ENABLE_AUTO_RESTART", ""))
    delay_text = environment.get("KILL_OLD_DELAY")
    if delay_text is not None:
        delay = _duration("KILL_OLD_DELAY", delay_text)
    else:
        delay = _KILL_OLD_DELAY_WITH_AUTO_RESTART_SECONDS if restarts else 0.0
    if not restarts:
        return Pacing(kill_old_delay_seconds=delay)
    interval = _duration("AUTO_RESTART_INTERVAL", environment.get("AUTO_RESTART_INTERVAL", ""))
    return Pacing(delay, interval or AUTO_RESTART_INTERVAL.default)


def _duration(name: str, text: str) -> float:
    return parse_duration(name, text) if text.strip() else 0.0
