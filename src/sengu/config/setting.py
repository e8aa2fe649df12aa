"""What a setting is: one declaration, from which flags, help, docs and checks follow.

The declarations are in `config.settings`. Here is their shape, and `Values`, which holds what one
invocation has given for them. Imported by config and cli.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from sengu.config.kinds import FLAG, Kind

T = TypeVar("T")


class Effect(enum.StrEnum):
    """What it takes until a new value holds."""

    LIVE = "live"
    DEPLOY = "deploy"
    RESTART = "restart"


class Group(enum.StrEnum):
    """Headings, in the order in which help and docs show them."""

    LISTENERS = "Listeners"
    APPLICATION = "Application"
    QUEUES = "Queues"
    DEVELOPMENT = "Development"
    WORKERS = "Workers"
    CONTAINER = "Container"
    REQUESTS = "Requests"
    LIMITS = "Limits"
    RECYCLING = "Recycling"
    PROXIES = "Proxies and TLS"
    READINESS = "Readiness"
    DEPLOYS = "Deploys"
    STOPPING = "Stopping"
    FILES = "Files and process"
    INSTANCE = "Instance"


class Setting(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One setting. `T` is the type of its value.

    `default_text` says in words what the default depends on. `env` is the environment variable
    that sets it when the option is not given, `short` the option's second spelling, such as `-w`.
    The value of a repeatable one is a tuple.
    """

    name: str
    kind: Kind
    default: T
    group: Group
    help: str
    effect: Effect = Effect.RESTART
    default_text: str = ""
    env: str | None = None
    short: str | None = None
    metavar: str = ""
    repeatable: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def spellings(self) -> tuple[str, ...]:
        """What the option can be called on the command line."""
        return (self.flag,) if self.short is None else (self.short, self.flag)

    @property
    def is_switch(self) -> bool:
        return self.kind is FLAG

    @property
    def placeholder(self) -> str:
        return self.metavar or self.kind.metavar

    def describe_default(self) -> str:
        """The default in words, or nothing when there is none worth a word."""
        if self.default_text or self.default is None or self.default is False or self.repeatable:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


class Values:
    """What was given for the settings, parsed; the defaults for all others. `texts`: as given."""

    def __init__(
        self, given: Mapping[str, Any], texts: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self._given = given
        self.texts = texts or {}

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._given.get(setting.name, setting.default)
        return value

    def has(self, setting: Setting[Any]) -> bool:
        """Whether a value was given, be it the default."""
        return setting.name in self._given

    def filled(self, setting: Setting[Any], text: str) -> "Values":
        """These, and `text` as if it had been given, unless that setting was."""
        if self.has(setting):
            return self
        given = {**self._given, setting.name: setting.kind.parse(setting.flag, text)}
        return Values(given, {**self.texts, setting.name: (text,)})


def collect(*namespaces: Mapping[str, object]) -> tuple[Setting[Any], ...]:
    """All settings that are declared there, by group, and within one in their order."""
    declared = [
        value
        for namespace in namespaces
        for value in namespace.values()
        if isinstance(value, Setting)
    ]
    groups = list(Group)
    return tuple(sorted(declared, key=lambda setting: groups.index(setting.group)))


def parse_values(settings: Iterable[Setting[Any]], texts: Mapping[str, Sequence[str]]) -> Values:
    """Parse what was given: setting's name → its texts, in order. Raises UsageError.

    Of several texts for a setting that is not repeatable the last one holds, so that a script can
    append an option to overrule one before it.
    """
    given: dict[str, Any] = {}
    for setting in settings:
        parsed = tuple(setting.kind.parse(setting.flag, t) for t in texts.get(setting.name, ()))
        if parsed:
            given[setting.name] = parsed if setting.repeatable else parsed[-1]
    return Values(given, {name: tuple(texts[name]) for name in given})
