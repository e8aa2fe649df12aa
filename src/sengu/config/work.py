"""From values to the boot document of `sengu work`, with every check that needs more than one.

What any service needs is in `config.launch`. The class is not imported: that is the fork server's
part. Imported by `cli.work`, `cli.run` and `config.consume`.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from sengu.config.files import check_directory
from sengu.config.launch import Launch, Surroundings, look_around, make_launch, sockets_for
from sengu.config.policies import (
    boot_policy,
    restart_policy,
    start_policy,
    stop_policy,
    strategy,
)
from sengu.config.privileges import resolve_privileges
from sengu.config.setting import Values
from sengu.config.settings import application as shared
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.config.tuning import NAMES, wear
from sengu.errors import UsageError
from sengu.model.application import Application
from sengu.model.service import ReadyByNotify, ServiceSpec
from sengu.model.work import (
    CallableConfig,
    ConfigSource,
    FileConfig,
    InlineConfig,
    LogForm,
    WorkKind,
    WorkOptions,
)

ENGINE = "sengu.work.engine"
_SUFFIXES = (".toml", ".json", ".yaml", ".yml")


class Script(msgspec.Struct, frozen=True):
    """What a script says by itself: a configuration that has no text, and where modules are.

    `configured` are settings that were not given, but found in the configuration.
    """

    config: ConfigSource | None = None
    paths: tuple[str, ...] = ()
    configured: frozenset[str] = frozenset()


def assemble_work(
    values: Values, target: str | None, environ: Mapping[str, str], script: Script | None = None
) -> Launch:
    """Check everything and put it together. Raises UsageError."""
    script = script or Script()
    with blaming(script):
        if not target:
            raise UsageError(
                "no worker class was given; add it: sengu work MODULE:CLASS, as in "
                "myapp.jobs:Consumer"
            )
        options = work_options(values, target, script)
        return assemble_workers(values, look_around(values, environ), environ, options, ENGINE)


@contextmanager
def blaming(script: Script) -> Iterator[None]:
    """A setting that is wrong may have been found in the configuration, and not given."""
    try:
        yield
    except UsageError as problem:
        if not script.configured:
            raise
        found = ", ".join(sorted(script.configured))
        raise UsageError(f"{problem} (the configuration has the settings {found})") from None


def assemble_workers(
    values: Values,
    around: Surroundings,
    environ: Mapping[str, str],
    options: WorkOptions,
    engine: str,
) -> Launch:
    """What any engine that runs worker classes is started with. Raises UsageError."""
    service = _service_spec(values, around, options, engine)
    launch = make_launch(
        values, around, service, sockets_for(values, (), environ), _watched(values, around)
    )
    given = {name: values.texts[name] for name in NAMES if name in values.texts}
    return Launch(msgspec.structs.replace(launch.boot, given=given), launch.environment)


def work_options(values: Values, target: str, script: Script) -> WorkOptions:
    """What the engine is told. Raises UsageError."""
    kind = WorkKind(values[known.KIND])
    if values[known.COMMAND_PIPE] and kind is not WorkKind.SPAWN:
        raise UsageError("--command-pipe is for --kind spawn; add that or leave it out")
    return WorkOptions(
        target=check_class("the worker class", target),
        kind=kind,
        threads=values[known.WORKERS] if kind is WorkKind.THREAD else 1,
        command_pipe=values[known.COMMAND_PIPE],
        settings=NAMES,
        **common_options(values, script),
    )


def common_options(values: Values, script: Script) -> dict[str, Any]:
    """Fields of WorkOptions that do not depend on what a worker is. Raises UsageError."""
    return {
        "server": _server(values),
        "paths": script.paths,
        "config": script.config or config_source(values),
        "log_level": values[known.LOG_LEVEL],
        "log_form": LogForm(values[known.LOG_FORMAT]),
        "heartbeat_seconds": values[known.HEARTBEAT_TIMEOUT] or None,
        "restart_seconds": values[common.INTERVAL],
        "overrides": tuple(
            setting.name
            for setting in known.SETTINGS
            if values.has(setting) and setting.name not in script.configured
        ),
    }


def check_class(label: str, text: str) -> str:
    """Refuse what names nothing in a module or a script. Raises UsageError."""
    place, colon, name = text.rpartition(":")
    if not colon or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{label} {text!r} is not spelled right; write MODULE:CLASS, as in "
            "myapp.jobs:Consumer, or SCRIPT.py:CLASS"
        )
    if not place.endswith(".py"):
        return text
    return f"{check_script(label, place)}:{name}"


def check_script(label: str, text: str) -> str:
    """Its path. Raises UsageError."""
    path = os.path.abspath(text)
    if not os.path.isfile(path):
        raise UsageError(f"{label} {text!r}: there is no script {path}; check the path")
    return path


def _service_spec(
    values: Values, around: Surroundings, options: WorkOptions, engine: str
) -> ServiceSpec:
    is_alone = options.kind is WorkKind.THREAD
    return ServiceSpec(
        name=around.name,
        command=(options.target,),
        workers=1 if is_alone else values[known.WORKERS],
        boot=boot_policy(values, ReadyByNotify()),
        retire=stop_policy(values, signal.SIGTERM),
        stop=stop_policy(values, signal.SIGTERM),
        restart=restart_policy(values),
        strategy=strategy(values),
        watchdog_seconds=options.heartbeat_seconds,
        application=_application(values, options, engine),
        start=start_policy(values),
    )


def _application(values: Values, options: WorkOptions, engine: str) -> Application:
    return Application(
        engine=engine,
        target=options.target,
        options=msgspec.Raw(msgspec.json.encode(options)),
        lanes=options.threads,
        preload=not values[shared.NO_PRELOAD],
        hooks=values[shared.HOOKS],
        privileges=resolve_privileges(values),
        request_timeout_seconds=options.heartbeat_seconds,
        grace_seconds=values[common.GRACE],
        wear=wear(values),
        is_configured=options.config != InlineConfig(),
        has_requests=False,
    )


def _server(values: Values) -> str | None:
    given = values[known.SERVER]
    return None if given is None else check_class("--server", given)


def config_source(values: Values) -> ConfigSource:
    """Raises UsageError."""
    given = values[known.CONFIG]
    if given is None:
        return InlineConfig()
    if given.endswith(_SUFFIXES):
        path = os.path.abspath(given)
        if not os.path.isfile(path):
            raise UsageError(f"--config {given!r}: there is no such file; check the path")
        return FileConfig(path)
    if ":" not in given:
        raise UsageError(
            f"--config {given!r} is neither a file of .toml, .json or .yaml nor MODULE:FUNCTION"
        )
    return CallableConfig(check_class("--config", given))


def _watched(values: Values, around: Surroundings) -> tuple[str, ...]:
    """Directories in which a change is a deploy."""
    if not values[shared.RELOAD]:
        if values.has(shared.RELOAD_DIR):
            raise UsageError("--reload-dir is of no use alone; add --reload, or leave it out")
        return ()
    given = values[shared.RELOAD_DIR]
    paths = tuple(dict.fromkeys(map(os.path.abspath, given)))
    for path in paths:
        check_directory("--reload-dir", path)
    return paths or (around.workers_directory,)
