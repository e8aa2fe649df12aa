"""Settings in the configuration of worker classes: which count, what comes of them, and when.

The configuration is read where the workers come from; what is a setting by its name is sent to the
server, and is read here as on the command line, which has the last word. Pure. Imported by the
server, and by `config.work`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sengu.config import kinds
from sengu.config.pacing import pacing_from
from sengu.config.policies import (
    boot_policy,
    restart_policy,
    start_policy,
    stop_policy,
    strategy,
)
from sengu.config.setting import Setting, Values
from sengu.config.settings import application as shared
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.errors import UsageError
from sengu.model.application import Application, Wear
from sengu.model.service import Pacing, ServiceSpec
from sengu.model.work import (
    CallableConfig,
    ConfigSource,
    FileConfig,
    LogForm,
    WorkKind,
    WorkOptions,
)

# All workers of a kind `thread` are one process, which is as it was made.
LIVE: tuple[Setting[Any], ...] = (
    known.WORKERS,
    known.LOG_LEVEL,
    common.INTERVAL,
    common.UNRECOVERABLE_EXIT_CODES,
    common.STOP_IMMEDIATELY_AT_UNRECOVERABLE_EXIT,
    common.START_DELAY,
    common.START_JITTER,
    common.READY_TIMEOUT,
    common.ATTEMPTS,
    common.STRATEGY,
    common.MAX_SURGE,
    common.MAX_UNAVAILABLE,
    common.KILL_OLD_DELAY,
    common.ENABLE_AUTO_RESTART,
    common.AUTO_RESTART_INTERVAL,
    common.GRACE,
    common.STOP_ESCALATION,
)
# What workers are born with: those of the next generation, and whoever is started again before.
BY_DEPLOY: tuple[Setting[Any], ...] = (
    known.LOG_FORMAT,
    shared.MAX_RSS,
    shared.MAX_AGE,
    shared.JITTER,
)
_PACING = (common.KILL_OLD_DELAY, common.ENABLE_AUTO_RESTART, common.AUTO_RESTART_INTERVAL)
_SETTINGS = {setting.name: setting for setting in known.SETTINGS if setting is not known.CONFIG}
# A configuration cannot say where it is itself.
NAMES = tuple(_SETTINGS)


class Stated(msgspec.Struct, frozen=True):
    """A setting that a configuration has: as the command line would have it, and its value."""

    texts: tuple[str, ...]
    value: Any


class Tuned(msgspec.Struct, frozen=True):
    """What a configuration comes to. `values` are those that hold; `stated` it has all of."""

    spec: ServiceSpec
    values: Values
    stated: Mapping[str, Stated]
    variables: Mapping[str, str]

    def pacing(self, environment: Mapping[str, str]) -> Pacing:
        """Of a generation; what its environment says counts more. Raises UsageError."""
        return pacing_from({**self.variables, **environment})


class Change(msgspec.Struct, frozen=True):
    """What has come of another configuration, in words: settings that hold now, those that need
    more than that, and those that the command line has given.
    """

    taken: tuple[str, ...]
    waiting: tuple[str, ...]
    overridden: tuple[str, ...]


class Tuner:
    """Of the service that `spec` is without a configuration; `given` is what it was made from."""

    def __init__(self, spec: ServiceSpec, given: Mapping[str, Sequence[str]]) -> None:
        assert spec.application is not None
        self._spec = spec
        self._application: Application = spec.application
        self._options = msgspec.json.decode(spec.application.options, type=WorkOptions)
        self._given = {name: _parse(f"--{name}", name, texts) for name, texts in given.items()}
        self._where = where(self._options.config)
        self._is_threaded = self._options.kind is WorkKind.THREAD
        self._live = _live(is_threaded=self._is_threaded)
        self._tunable = _tunable(is_threaded=self._is_threaded)

    def tune(self, settings: Mapping[str, Any]) -> Tuned:
        """The service with these settings. Raises UsageError that names the wrong one's place."""
        stated = read_settings(self._where, settings)
        holding = {
            name: one
            for name, one in stated.items()
            if name in self._tunable and name not in self._options.overrides
        }
        values = Values({**self._given, **{name: one.value for name, one in holding.items()}})
        try:
            spec = self._tuned(values)
        except UsageError as error:
            raise UsageError(f"{self._where}: {error}") from None
        variables = {
            one.env: holding[one.name].texts[-1]
            for one in _PACING
            if one.env is not None and one.name in holding
        }
        return Tuned(spec, values, stated, variables)

    def recall(self, settings: Mapping[str, Any]) -> Tuned:
        """The service with settings that hold already. Another version may have found them good."""
        try:
            return self.tune(settings)
        except UsageError:
            return self.tune({})

    def compare(self, before: Tuned, after: Tuned) -> Change:
        """What people are told of it."""
        taken, waiting, overridden = [], [], []
        for name, setting in _SETTINGS.items():
            stated = after.stated.get(name)
            text = _shown(setting, stated)
            if name in self._options.overrides:
                if stated is not None and stated.value != self._given.get(name):
                    overridden.append(f"{name} {text} does not count: {setting.flag} was given")
            elif name not in self._tunable:
                if self._differs(setting, stated):
                    waiting.append(f"{name} {text} needs a restart")
            elif before.values[setting] != after.values[setting]:
                if name in self._live:
                    taken.append(f"{name} {_shown(setting, before.stated.get(name))} -> {text}")
                else:
                    waiting.append(f"{name} {text} needs a deploy")
        return Change(tuple(taken), tuple(waiting), tuple(overridden))

    def _differs(self, setting: Setting[Any], stated: Stated | None) -> bool:
        """Whether the service was started with another value."""
        if stated is None:  # it was in the configuration then
            return setting.name in self._given
        return bool(stated.value != self._given.get(setting.name, setting.default))

    def _tuned(self, values: Values) -> ServiceSpec:
        spec = self._spec
        # There may be more of them than we know, which are an engine's own.
        options = {
            **msgspec.json.decode(self._application.options),
            "log_form": LogForm(values[known.LOG_FORMAT]),
            "restart_seconds": values[common.INTERVAL],
        }
        application = msgspec.structs.replace(
            self._application,
            options=msgspec.Raw(msgspec.json.encode(options)),
            grace_seconds=values[common.GRACE],
            wear=wear(values),
        )
        return msgspec.structs.replace(
            spec,
            workers=1 if self._is_threaded else values[known.WORKERS],
            boot=boot_policy(values, spec.boot.readiness),
            retire=stop_policy(values, spec.retire.signal),
            stop=stop_policy(values, spec.stop.signal),
            restart=restart_policy(values),
            strategy=strategy(values),
            start=start_policy(values),
            application=application,
        )


def wear(values: Values) -> Wear:
    return Wear(None, values[shared.MAX_RSS], values[shared.MAX_AGE], values[shared.JITTER])


def where(source: ConfigSource) -> str:
    """What a configuration is called."""
    match source:
        case FileConfig(path):
            return path
        case CallableConfig(target):
            return f"{target}()"
        case _:
            return "config"


def at_start(place: str, found: Mapping[str, Any], values: Values) -> dict[str, tuple[str, ...]]:
    """Settings in a configuration, as texts, that hold from the start on only, and were not given.

    Raises UsageError, whatever setting is wrong.
    """
    stated = read_settings(place, found)
    kind = values[known.KIND]
    if known.KIND.name in stated and not values.has(known.KIND):
        kind = stated[known.KIND.name].value
    later = _tunable(is_threaded=kind == WorkKind.THREAD)
    return {
        name: one.texts
        for name, one in stated.items()
        if name not in later and not values.has(_SETTINGS[name])
    }


def _live(*, is_threaded: bool) -> frozenset[str]:
    return frozenset(one.name for one in LIVE if not (is_threaded and one is known.WORKERS))


def _tunable(*, is_threaded: bool) -> frozenset[str]:
    return _live(is_threaded=is_threaded) | {one.name for one in BY_DEPLOY}


def read_settings(place: str, found: Mapping[str, Any]) -> dict[str, Stated]:
    """Those of a configuration's values that are settings. Raises UsageError."""
    stated: dict[str, Stated] = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        setting = _SETTINGS.get(name)
        if setting is None or value is None:
            continue
        if name in stated:
            raise UsageError(f"{place}: {key} is there twice, with - and with _; leave one")
        texts = _texts(f"{place}: {key}", setting, value)
        stated[name] = Stated(texts, _parse(f"{place}: {key}:", name, texts))
    return stated


def _texts(label: str, setting: Setting[Any], value: object) -> tuple[str, ...]:
    if setting.repeatable and isinstance(value, list):
        return tuple(_text(f"{label}[{number}]", setting, one) for number, one in enumerate(value))
    return (_text(label, setting, value),)


def _text(label: str, setting: Setting[Any], value: object) -> str:
    match value:
        case bool() if setting.is_switch:
            return "1" if value else ""
        case str() if not setting.is_switch:
            return value
        case bool() | str():
            pass
        case int() if setting.kind is kinds.MODE:  # of which base would it be?
            raise UsageError(f"{label} {value} is a number; write it in quotes, as in '022'")
        case int() | float() if not setting.is_switch:
            return str(value)
        case _:
            pass
    expected = "true or false" if setting.is_switch else f"a {setting.kind.name}"
    raise UsageError(
        f"{label} is a {type(value).__name__}, and has to be {expected}, as {setting.flag} has it; "
        "a value of your own needs another name"
    )


def _parse(label: str, name: str, texts: Sequence[str]) -> Any:
    setting = _SETTINGS[name]
    parsed = tuple(setting.kind.parse(label, text) for text in texts)
    return parsed if setting.repeatable else parsed[-1]


def _shown(setting: Setting[Any], stated: Stated | None) -> str:
    if setting.is_switch:
        return "on" if stated is not None and stated.value else "off"
    if stated is not None:
        return ",".join(stated.texts)
    return setting.describe_default() or "none"
