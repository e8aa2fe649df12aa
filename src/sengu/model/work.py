"""A worker class's options, as data: filled in by the command line, read by its engine."""

import enum

import msgspec


class WorkKind(enum.StrEnum):
    """What a worker is: a forked process, one of several threads in one, a process that runs an
    event loop, one that looks after a program, or none but the one in the foreground.
    """

    PROCESS = "process"
    THREAD = "thread"
    ASYNC = "async"
    SPAWN = "spawn"
    EMBEDDED = "embedded"


class InlineConfig(msgspec.Struct, frozen=True, tag="inline"):
    """The configuration itself, as JSON."""

    data: msgspec.Raw = msgspec.Raw(b"{}")


class FileConfig(msgspec.Struct, frozen=True, tag="file"):
    """A file of TOML, JSON or YAML, by its suffix."""

    path: str


class CallableConfig(msgspec.Struct, frozen=True, tag="callable"):
    """A function without arguments that returns it, by its target."""

    target: str


ConfigSource = InlineConfig | FileConfig | CallableConfig


class LogForm(enum.StrEnum):
    """How `self.log` writes a line."""

    TEXT = "text"
    JSON = "json"


class WorkOptions(msgspec.Struct, frozen=True):
    """`target` and `server` are `module:Class` or `/path/script.py:Class`.

    `paths` are where modules are found before anywhere else. `threads` is how many workers a
    process of kind `thread` runs. With `command_pipe` a program hears by lines on its stdin, and
    not by signals. `overrides` are settings that the command line has given: the configuration does
    not change them. `settings` are the names of all that it could change.
    """

    target: str
    kind: WorkKind = WorkKind.PROCESS
    threads: int = 1
    server: str | None = None
    paths: tuple[str, ...] = ()
    config: ConfigSource = InlineConfig()
    log_level: str = "info"
    log_form: LogForm = LogForm.TEXT
    command_pipe: bool = False
    heartbeat_seconds: float | None = None
    restart_seconds: float = 1.0
    overrides: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
