"""Settings in the configuration file of a worker class that hold only from a start on.

The command line reads them before anything is started, as it does what it is given; the others are
read where workers come from, again and again (`config.tuning`). A function is not called here: it
is the application's. Imported by `cli.work`, `cli.run` and
`cli.consume`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sengu.config.setting import Setting, Values, parse_values
from sengu.config.settings import work as known
from sengu.config.tuning import NAMES, at_start, where
from sengu.config.work import Script, config_source
from sengu.errors import UsageError
from sengu.model.work import FileConfig
from sengu.work.configuration import settings_of
from sengu.work.source import evaluate
from sengu.worker.engine import LoadError


def parse_configured(
    texts: Mapping[str, Sequence[str]],
    script: Script,
    settings: Sequence[Setting[Any]] = known.SETTINGS,
    names: tuple[str, ...] = NAMES,
) -> tuple[Values, Script]:
    """What was given for the settings, and what the file says besides, of those with these names.

    Raises UsageError.
    """
    values = parse_values(settings, texts)
    source = script.config or config_source(values)
    if not isinstance(source, FileConfig):
        return values, script
    try:
        found = evaluate(source)
    except LoadError as problem:
        raise UsageError(str(problem)) from problem
    more = at_start(where(source), settings_of(found, names), values)
    script = msgspec.structs.replace(script, configured=frozenset(more))
    return parse_values(settings, {**texts, **more}), script
