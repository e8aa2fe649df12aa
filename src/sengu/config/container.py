"""`sengu start --container`: what is run, by which engine, with which variables.

Every combination that could not work is refused here, by UsageError. Looks for programs, starts
nothing. Imported by `config.assemble`.
"""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from sengu.config.launch import Surroundings
from sengu.config.programs import check_program
from sengu.config.setting import Setting, Values
from sengu.config.settings import start as known
from sengu.errors import UsageError
from sengu.model.container import ENGINES, Container
from sengu.model.service import ReadyAfterDelay, ReadyByNotify, ReadyByProbe, ServiceSpec

replace = msgspec.structs.replace

GIVEN = "SENGU_CONTAINER_ENV"  # the runner's (container.command): variables as JSON
_ADJUNCTS: tuple[Setting[Any], ...] = (
    known.PULL,
    known.ENGINE,
    known.ENGINE_OPTION,
    known.ENV,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# What the runner says by itself, or what would take the container out of its hands.
_OURS = {
    "--cidfile": "",
    "--detach": "the container would not be followed",
    "-d": "the container would not be followed",
    "--interactive": "there is no terminal",
    "-i": "there is no terminal",
    "--name": "its name tells service, generation and slot",
    "--pull": "use sengu's --pull, which pulls before each generation",
    "--restart": "sengu starts it again",
    "--rm": "sengu removes it",
    "--sig-proxy": "sengu passes signals on",
    "--stop-signal": "use sengu's --signal-on-term",
    "--stop-timeout": "use sengu's --grace",
    "--tty": "there is no terminal",
    "-t": "there is no terminal",
    "-it": "there is no terminal",
}


def given_variables(values: Values) -> dict[str, str]:
    """The runner's own variable, which carries those that have got a value by `--env NAME=VALUE`.

    They must be in nobody's arguments, and not in the engine's environment: PATH would be its own.
    Raises UsageError.
    """
    pairs = [_variable(text) for text in values[known.ENV]]
    given = {name: value for name, value in pairs if value is not None}
    return {GIVEN: msgspec.json.encode(given).decode()} if given else {}


def container_from(values: Values, args: Sequence[str], around: Surroundings) -> Container | None:
    """None without `--container`. Raises UsageError."""
    image = values[known.CONTAINER]
    if image is None:
        _refuse_adjuncts(values)
        return None
    if image.startswith("-") or not image.isprintable() or " " in image:
        raise UsageError(f"--container {image!r} is no image; write its name, as in web:1.2")
    _refuse_what_cannot_pass(values)
    return Container(
        engine=_engine(values, around),
        image=image,
        args=tuple(args),
        options=_options(values),
        names=_names(values, around),
        env_dir=around.env_dir,
    )


def contain(service: ServiceSpec, container: Container, *, pulls: bool) -> ServiceSpec:
    """The service with that container for a worker.

    Only its runner knows since when it runs, so a delay until it is ready is the runner's to wait.
    """
    boot = service.boot
    if isinstance(boot.readiness, ReadyAfterDelay):
        container = replace(container, ready_seconds=boot.readiness.seconds)
        boot = replace(boot, readiness=ReadyByNotify())
    pull = ((*container.engine, "pull", container.image),) if pulls else ()
    return replace(service, container=container, boot=boot, pre_deploy=pull)


def shown_command(container: Container) -> tuple[str, ...]:
    """What people are shown in place of a command."""
    return (*container.engine, "run", container.image, *container.args)


def _refuse_adjuncts(values: Values) -> None:
    for setting in _ADJUNCTS:
        if values.has(setting):
            raise UsageError(f"{setting.flag} is for containers; add --container IMAGE")


def _refuse_what_cannot_pass(values: Values) -> None:
    """An engine's daemon starts the container: none of our descriptors gets there."""
    for setting in (known.PORT, known.PATH):
        if values[setting]:
            raise UsageError(
                f"{setting.flag} with --container: a listener cannot be handed into a container; "
                "let the program in it listen by itself, with SO_REUSEPORT, and name its port: "
                "--self-bound PORT"
            )
    if isinstance(values[known.READY], ReadyByProbe):
        raise UsageError(
            "--ready tcp and http:PATH connect to a listener of sengu's, and a container has none; "
            "use --self-bound PORT, which waits until it listens there, or --ready delay:SECONDS"
        )
    if isinstance(values[known.READY], ReadyByNotify) or values[known.WATCHDOG] is not None:
        raise UsageError(
            "--ready notify and --watchdog need a NOTIFY_SOCKET, which does not reach into a "
            "container; use --ready delay:SECONDS"
        )


def _engine(values: Values, around: Surroundings) -> tuple[str, ...]:
    given = values[known.ENGINE]
    path, directory = around.workers_environment.get("PATH"), around.workers_directory
    if given is None:
        for name in ENGINES:
            if _is_there(name, path, directory):
                return (name,)
        raise UsageError(
            "--container needs podman or docker, and neither was found in PATH; install one, or "
            "give its full path: --engine /opt/bin/podman"
        )
    words = _words("--engine", given)
    if os.path.basename(words[0]) not in ENGINES:
        raise UsageError(
            f"--engine {given!r}: {words[0]!r} is no engine that is known; write podman or docker, "
            "a path that ends so, or either with its global options"
        )
    try:
        check_program(words[0], path, directory)
    except UsageError as problem:
        raise UsageError(f"--engine: {problem}; is it installed?") from None
    return words


def _is_there(name: str, path: str | None, directory: str) -> bool:
    try:
        check_program(name, path, directory)
    except UsageError:
        return False
    return True


def _options(values: Values) -> tuple[str, ...]:
    words: list[str] = []
    for text in values[known.ENGINE_OPTION]:
        found = _words("--engine-option", text)
        if not found[0].startswith("-"):
            raise UsageError(
                f"--engine-option {text!r} is no option; write it as the engine has it, as in "
                "--engine-option=--memory=1g or --engine-option='--volume /srv:/srv'"
            )
        why = _OURS.get(found[0].partition("=")[0])
        if why is not None:
            reason = f": {why}" if why else ""
            raise UsageError(
                f"--engine-option {text!r} is not for you to set{reason}; leave it out"
            )
        words += found
    return tuple(words)


def _names(values: Values, around: Surroundings) -> tuple[str, ...]:
    pairs = dict(_variable(text) for text in values[known.ENV])
    for name, value in pairs.items():
        if value is None and name not in around.workers_environment:
            raise UsageError(
                f"--env {name} is not set; set it, or give it here: --env {name}=VALUE"
            )
    return tuple(pairs)


def _words(flag: str, text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as problem:  # "No closing quotation"
        raise UsageError(f"{flag} {text!r}: {problem}; close the quotes") from None
    if not words:
        raise UsageError(f"{flag} is empty; give it a value or leave it out")
    return tuple(words)


def _variable(text: str) -> tuple[str, str | None]:
    """Name and value of `NAME=VALUE`; `NAME` has none of its own."""
    name, equals, value = text.partition("=")
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"--env {name!r} is no variable's name; write NAME or NAME=VALUE")
    if "\n" in value or "\r" in value:
        raise UsageError(
            f"--env {name}: its value has a line break in it; set the variable for sengu, and "
            f"pass it on: --env {name}"
        )
    return name, value if equals else None
