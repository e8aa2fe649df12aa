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


class Tuned(msgspec.Struct, frozen=True):
    """What a configuration comes to. `values` are those that hold, `texts` those it has given."""

    spec: ServiceSpec
    values: Values
    texts: Mapping[str, tuple[str, ...]]

    def pacing(self, environment: Mapping[str, str]) -> Pacing:
        """Of a generation; what its environment says counts more. Raises UsageError."""
        own = {one.env: self.texts[one.name][-1] for one in _PACING if one.name in self.texts}
        return pacing_from({**{name: text for name, text in own.items() if name}, **environment})


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
        self._given = parse_given(given)
        self._where = where(self._options.config)
        self._is_threaded = self._options.kind is WorkKind.THREAD
        self._live = _live(is_threaded=self._is_threaded)
        self._tunable = _tunable(is_threaded=self._is_threaded)

    def tune(self, settings: Mapping[str, Any]) -> Tuned:
        """The service with these settings. Raises UsageError that names the wrong one's place."""
        texts = setting_texts(self._where, settings)
        parsed = {
            name: _parse(f"{self._where}: {name}:", name, text) for name, text in texts.items()
        }
        holding = {
            name: value
            for name, value in parsed.items()
            if name in self._tunable and name not in self._options.overrides
        }
        values = Values({**self._given, **holding})
        try:
            spec = self._tuned(values)
        except UsageError as error:
            raise UsageError(f"{self._where}: {error}") from None
        tuned = Tuned(spec, values, {name: texts[name] for name in holding})
        tuned.pacing({})
        return tuned

    def compare(self, before: Mapping[str, Any], settings: Mapping[str, Any]) -> Change:
        """Both have been read, and found good."""
        old, new = self.tune(before).values, self.tune(settings).values
        texts, old_texts = (setting_texts(self._where, one) for one in (settings, before))
        taken, waiting, overridden = [], [], []
        for name, setting in _SETTINGS.items():
            text = _shown(setting, texts)
            if name in self._tunable and old[setting] != new[setting]:
                if name in self._live:
                    taken.append(f"{name} {_shown(setting, old_texts)} -> {text}")
                else:
                    waiting.append(f"{name} {text} needs a deploy")
            elif name in self._options.overrides:
                if name in texts and _parse("", name, texts[name]) != self._given.get(name):
                    overridden.append(f"{name} {text} does not count: {setting.flag} was given")
            elif name not in self._tunable and self._differs(setting, texts):
                waiting.append(f"{name} {text} needs a restart")
        return Change(tuple(taken), tuple(waiting), tuple(overridden))

    def _differs(self, setting: Setting[Any], texts: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether the service was started with another value."""
        if setting.name not in texts:
            return setting.name in self._given
        value = _parse("", setting.name, texts[setting.name])
        return bool(value != self._given.get(setting.name, setting.default))

    def _tuned(self, values: Values) -> ServiceSpec:
        spec = self._spec
        options = msgspec.structs.replace(
            self._options,
            log_form=LogForm(values[known.LOG_FORMAT]),
            restart_seconds=values[common.INTERVAL],
        )
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
    texts = setting_texts(place, found)
    parsed = {name: _parse(f"{place}: {name}:", name, text) for name, text in texts.items()}
    kind = values[known.KIND] if values.has(known.KIND) else parsed.get(known.KIND.name)
    later = _tunable(is_threaded=kind == WorkKind.THREAD)
    return {
        name: text
        for name, text in texts.items()
        if name not in later and not values.has(_SETTINGS[name])
    }


def _live(*, is_threaded: bool) -> frozenset[str]:
    return frozenset(one.name for one in LIVE if not (is_threaded and one is known.WORKERS))


def _tunable(*, is_threaded: bool) -> frozenset[str]:
    return _live(is_threaded=is_threaded) | {one.name for one in BY_DEPLOY}


def setting_texts(place: str, found: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Those of a configuration's values that are settings, as the command line would have them.

    Raises UsageError.
    """
    texts: dict[str, tuple[str, ...]] = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        setting = _SETTINGS.get(name)
        if setting is None or value is None:
            continue
        if name in texts:
            raise UsageError(f"{place}: {key} is there twice, with - and with _; leave one")
        texts[name] = _texts(f"{place}: {key}", setting, value)
    return texts


def parse_given(given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What was given on the command line: name of the setting, value."""
    return {name: _parse(f"--{name}", name, texts) for name, texts in given.items()}


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


def _shown(setting: Setting[Any], texts: Mapping[str, tuple[str, ...]]) -> str:
    if setting.name in texts:
        found = ",".join(texts[setting.name])
        return ("on" if found == "1" else "off") if setting.is_switch else found
    return "off" if setting.is_switch else setting.describe_default() or "none"
