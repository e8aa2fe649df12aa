"""What is assembled for any service: its environment, its places and files, its boot document.

Everything wrong is found before anything is bound, written or started: each mistake raises
UsageError with one line. Reads the system, changes nothing. Imported by `config.assemble`,
`config.web` and cli.
"""

import os
from collections.abc import Mapping

import msgspec

from sengu.config.boot import Boot, Files
from sengu.config.envdir import read_envdir
from sengu.config.files import check_directory, check_replaceable, check_writable
from sengu.config.inherit import STARTER_VARIABLES, distinct_sockets, named_descriptors
from sengu.config.instance import (
    RunPlaces,
    check_control_path,
    check_name,
    check_run_directory,
    control_path,
    default_name,
    run_places,
)
from sengu.config.log import log_target, log_waits, rotation_for
from sengu.config.pacing import pacing_from
from sengu.config.programs import check_command, split_command
from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.config.sockets import default_backlog
from sengu.errors import UsageError
from sengu.model.address import ListenerSpec, Sockets
from sengu.model.service import ServiceSpec, SignalProfile


class Launch(msgspec.Struct, frozen=True):
    """What the server is started with: its document, and its environment."""

    boot: Boot
    environment: Mapping[str, str]


class Surroundings(msgspec.Struct, frozen=True):
    """Where the service will live. `cwd` is ours, `directory` the workers' if it is another.

    `environment` is the server's; the workers' has also what `env_dir` holds now.
    """

    name: str
    control: str
    cwd: str
    directory: str | None
    env_dir: str | None
    environment: Mapping[str, str]
    workers_environment: Mapping[str, str]

    @property
    def workers_directory(self) -> str:
        return self.directory or self.cwd


def look_around(values: Values, environ: Mapping[str, str]) -> Surroundings:
    """Find out where the service will live. Raises UsageError."""
    environment = {**environ, **exported(values)}
    env_dir = _env_dir(values, environment)
    workers_environment = {**environment, **(_read(env_dir) if env_dir else {})}
    pacing_from(workers_environment)  # the server asks per generation; a bad number ends it here
    places = run_places(environ)
    name, control = _instance(values, places)
    return Surroundings(
        name=name,
        control=control,
        cwd=places.cwd,
        directory=_directory(values),
        env_dir=env_dir,
        environment=environment,
        workers_environment=workers_environment,
    )


def sockets_for(
    values: Values, listeners: tuple[ListenerSpec, ...], environ: Mapping[str, str]
) -> Sockets:
    """Those to be bound, and those that were passed to us. Raises UsageError."""
    return Sockets(
        listeners=listeners,
        inherited=distinct_sockets(named_descriptors(environ, os.getpid())),
        backlog=values[common.BACKLOG] or default_backlog(),
        path_mode=values[common.PATH_MODE],
        reuseport=values[common.REUSEPORT],
        allowed=values[common.ALLOW_LISTEN],
    )


def make_launch(
    values: Values,
    around: Surroundings,
    service: ServiceSpec,
    sockets: Sockets,
    watched: tuple[str, ...] = (),
) -> Launch:
    """Write the document. Raises UsageError."""
    service = msgspec.structs.replace(
        service,
        pre_deploy=(*service.pre_deploy, *_pre_deploy(values, around)),
        pre_deploy_seconds=values[common.PRE_DEPLOY_TIMEOUT],
    )
    boot = Boot(
        service=service,
        control=around.control,
        sockets=sockets,
        files=_files(values, around.environment.get("PATH")),
        directory=around.directory,
        env_dir=around.env_dir,
        signals=SignalProfile(values[common.SIGNALS]),
        watched=watched,
        makes_cgroups=values[common.CGROUPS] == "auto",
    )
    _check_text(boot)
    return Launch(boot, {k: v for k, v in around.environment.items() if k not in STARTER_VARIABLES})


def exported(values: Values) -> dict[str, str]:
    """Options that are variables too, as variables.

    Server::Starter puts them into the environment, and so they reach its children; the server
    then has only one place to look at.
    """
    variables = {}
    for setting in common.SETTINGS:
        if setting.env is None or not values.has(setting):
            continue
        value = values[setting]
        if setting.is_switch:
            variables[setting.env] = "1" if value else ""
        else:
            variables[setting.env] = _plain(value) if isinstance(value, float) else value
    return variables


def _plain(number: float) -> str:
    """Without an exponent, which no reader of these variables expects."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _directory(values: Values) -> str | None:
    given = values[common.DIR]
    if given is None:
        return None
    path = os.path.abspath(given)
    check_directory("--dir", path)
    return path


def _env_dir(values: Values, environment: Mapping[str, str]) -> str | None:
    given = environment.get("ENVDIR")
    if not given:
        return None
    path = os.path.abspath(given)
    check_directory("--envdir" if values.has(common.ENVDIR) else "ENVDIR", path)
    return path


def _read(env_dir: str) -> dict[str, str]:
    try:
        return read_envdir(env_dir)
    except OSError as problem:
        raise UsageError(
            f"--envdir {env_dir!r} cannot be read: {problem.strerror}; check its permissions"
        ) from problem


def _instance(values: Values, places: RunPlaces) -> tuple[str, str]:
    """Name and control socket."""
    name = check_name(values[common.NAME] or default_name(places.cwd))
    given = values[common.CONTROL]
    if given is None:
        check_run_directory(places.directories[0], places.uid)
        return name, check_control_path(control_path(name, places.directories[0]))
    path = check_control_path(os.path.abspath(given))
    check_replaceable("--control", path)
    return name, path


def _files(values: Values, search_path: str | None) -> Files:
    pid, status = _absolute(values[common.PID_FILE]), _absolute(values[common.STATUS_FILE])
    if pid is not None:
        check_writable("--pid-file", pid)
    if status is not None:
        check_replaceable("--status-file", status)
    if pid is not None and pid == status:
        raise UsageError(f"--pid-file and --status-file are both {pid!r}; give each its own file")
    log = log_target(values, search_path)
    return Files(pid, status, log, rotation_for(values, log), log_waits(values))


def _pre_deploy(values: Values, around: Surroundings) -> tuple[tuple[str, ...], ...]:
    """The words of each command."""
    commands = []
    flag, search_path = common.PRE_DEPLOY.flag, around.workers_environment.get("PATH")
    for text in values[common.PRE_DEPLOY]:
        words = split_command(text, f"{flag} {text!r}")
        check_command(words, flag, search_path, around.workers_directory)
        commands.append(tuple(words))
    return tuple(commands)


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _check_text(boot: Boot) -> None:
    """Refuse names that are not UTF-8: neither the document nor the control API can carry them."""
    try:
        msgspec.json.encode(boot)
    except UnicodeEncodeError as problem:
        raise UsageError(
            f"{problem.object!r} is not UTF-8; rename it, or leave it to a script to name it"
        ) from None
