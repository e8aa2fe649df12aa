"""`sengu.run`: what `sengu work` does, called by a script with its own class.

The same settings, by their names with underscores, the same checks, and the same way from there:
this very process becomes the main one. Imported as `sengu.run`.
"""

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from sengu.cli.become import launch_server
from sengu.cli.configured import parse_configured
from sengu.cli.exits import Exit
from sengu.config.setting import Setting
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.config.work import Script, assemble_work
from sengu.errors import SenguError, UsageError
from sengu.model.work import CallableConfig, ConfigSource, InlineConfig, WorkKind
from sengu.wire.forkserver import MAX_SETTINGS_BYTES
from sengu.work import source
from sengu.work.api import Server, Worker
from sengu.work.target import SCRIPT
from sengu.worker.engine import LoadError

_ALIASES = {"log": "log_file"}
_SETTINGS = {setting.name.replace("-", "_"): setting for setting in known.SETTINGS}

Configuration = Mapping[str, Any] | str | os.PathLike[str] | Callable[[], Mapping[str, Any]]


def run(
    worker: type[Worker] | str,
    /,
    *,
    server: type[Server] | str | None = None,
    config: Configuration | None = None,
    **settings: Any,
) -> NoReturn:
    """Run a worker class as `sengu work` does, and end with its exit code.

    `config` is a mapping, a file (.toml, .json, .yaml), or a function that returns a mapping. All
    other settings are those of `sengu work`, by name: `workers=4`, `daemonize=True`,
    `pid_file="server.pid"`; `log` is short for `log_file`. Classes and functions are imported once
    more, by the process that forks workers; so they need a name in a module or in the script.
    """
    try:
        code = _run(worker, server, config, _texts(settings))
    except SenguError as problem:
        print(f"sengu: error: {problem}", file=sys.stderr)
        code = problem.exit_code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(code)


def _run(
    worker: type[Worker] | str,
    server: type[Server] | str | None,
    config: Configuration | None,
    texts: dict[str, list[str]],
) -> int:
    """Raises SenguError."""
    target = _name(worker, "the worker class")
    if server is not None:
        texts[known.SERVER.name] = [_name(server, "server")]
    if isinstance(config, str | os.PathLike):
        texts[known.CONFIG.name] = [os.fsdecode(config)]
    script = Script(None if isinstance(config, str | os.PathLike) else _config(config), _paths())
    values, script = parse_configured(texts, script)
    if values[known.KIND] == WorkKind.EMBEDDED:
        from sengu.cli.embedded import run_embedded  # nobody else needs it

        _share_main()
        return run_embedded(values, target, os.environ, script)
    launch = assemble_work(values, target, os.environ, script)
    return launch_server(launch, in_background=values[common.DAEMONIZE])


def _share_main() -> None:
    """So that breakpoints are in this module, and not in a second one of the same text."""
    main = sys.modules["__main__"]
    sys.modules[SCRIPT] = main
    if main.__spec__ is not None:  # python -m
        sys.modules.setdefault(main.__spec__.name, main)


def _texts(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """By setting's name, as a command line would have it. Raises TypeError, UsageError."""
    texts: dict[str, list[str]] = {}
    for given, value in settings.items():
        name = _ALIASES.get(given, given)
        if name not in _SETTINGS:
            raise TypeError(f"sengu.run() has no setting {given!r}; {_guess(given)}")
        if name != given and name in settings:
            raise TypeError(f"sengu.run() takes {given!r} or {name!r}, not both")
        if value is not None:
            texts[_SETTINGS[name].name] = _words(_SETTINGS[name], given, value)
    return texts


def _guess(name: str) -> str:
    close = difflib.get_close_matches(name, [*_SETTINGS, *_ALIASES], n=1)
    return f"did you mean {close[0]!r}?" if close else "see sengu work --help"


def _words(setting: Setting[Any], given: str, value: object) -> list[str]:
    if setting.repeatable and isinstance(value, list | tuple):
        return [_word(setting, given, one) for one in value]
    return [_word(setting, given, value)]


def _word(setting: Setting[Any], given: str, value: object) -> str:
    """Raises UsageError."""
    if setting.is_switch:
        if isinstance(value, bool):
            return "1" if value else ""
        raise UsageError(f"{given}={value!r} is no value for it; give True or False")
    match value:
        case str():
            return value
        case os.PathLike():
            return os.fsdecode(value)
        case float():
            return f"{value:f}"
        case int() if not isinstance(value, bool):
            return str(int(value))
        case _:
            raise UsageError(f"{given}={value!r} is no value for it; give a {setting.kind.name}")


def _config(config: Mapping[str, Any] | Callable[[], Any] | None) -> ConfigSource | None:
    if config is None:
        return None
    if isinstance(config, Mapping):
        try:
            plain = source.plain(config, "config")
        except LoadError as problem:
            raise UsageError(str(problem)) from problem
        return InlineConfig(msgspec.Raw(_small(msgspec.json.encode(plain))))
    return CallableConfig(_name(config, "config"))


def _small(config: bytes) -> bytes:
    """It goes with each message about the application. Raises UsageError."""
    if len(config) > MAX_SETTINGS_BYTES:
        raise UsageError(
            f"config is {len(config)} bytes of JSON, and {MAX_SETTINGS_BYTES} is the most for a "
            "mapping; give a function that returns it, or a file"
        )
    return config


def _name(thing: object, label: str) -> str:
    """What `sengu.work.target` finds it by. Raises UsageError."""
    if isinstance(thing, str):
        return thing
    name, module = getattr(thing, "__qualname__", ""), getattr(thing, "__module__", "")
    if not name or "<" in name:
        raise UsageError(
            f"{label} is {name or repr(thing)}, which no other process can import; define it with "
            "a name at the top level of its module"
        )
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        raise UsageError(
            f"{label} {name} is not what {module}.{name} is now; give it a name of its own there"
        )
    return f"{_place(module, label)}:{name}"


def _place(module: str, label: str) -> str:
    """The module's name, or the path of the script. Raises UsageError."""
    if module != "__main__":
        return module
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        return str(spec.name)
    path = getattr(main, "__file__", None)
    if path is None:
        raise UsageError(f"{label} was typed in, and no other process can import it; use a file")
    return os.path.abspath(str(path))


def _paths() -> tuple[str, ...]:
    """Where this script finds modules, before those of Python itself."""
    home = os.path.dirname(os.__file__)
    paths = []
    for entry in sys.path:
        if entry == home or entry.endswith(".zip"):
            break
        paths.append(os.path.abspath(entry))
    return tuple(paths)
