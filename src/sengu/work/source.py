"""The configuration of worker classes: read from a file, or made by a function of the user's.

Evaluated afresh each time, in the fork server or in the foreground, and never in the server: it may
run any code. Imported by `engine`, `sengu.testing` and `sengu.run`.
"""

import importlib
import math
import os
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec

from sengu.model.work import CallableConfig, ConfigSource, FileConfig, InlineConfig
from sengu.work import target
from sengu.worker.engine import LoadError


def evaluate(source: ConfigSource) -> dict[str, Any]:
    """The configuration as it is now, made of what JSON knows. Raises LoadError."""
    return plain(_evaluate(source), _where(source))


def plain(found: object, where: str) -> dict[str, Any]:
    """A copy made of what JSON knows. Raises LoadError, with the path of what it does not."""
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise LoadError(f"{where} is a {kind}, and has to be a mapping of names to values")
    return {str(name): _plain(value, f"{where}: {name}") for name, value in found.items()}


def _evaluate(source: ConfigSource) -> object:
    match source:
        case InlineConfig(data):
            return msgspec.json.decode(data)
        case FileConfig(path):
            return _read(path)
        case CallableConfig(name):
            return _call(name)


def _read(path: str) -> object:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise LoadError(f"cannot read the configuration {path}: {error.strerror}") from error
    try:
        return _decode(path, data)
    except (msgspec.DecodeError, ValueError) as error:
        raise LoadError(f"the configuration {path} is wrong: {error}") from error


def _decode(path: str, data: bytes) -> object:
    _import_for(path)
    match _suffix(path):
        case ".toml":
            return msgspec.toml.decode(data)
        case ".yaml" | ".yml":
            found = msgspec.yaml.decode(data)
            return {} if found is None else found  # it is empty, or nothing but comments
        case ".json" if not data.strip():
            raise LoadError(f"the configuration {path} is empty, which is no JSON; write {{}}")
        case ".json":
            return msgspec.json.decode(data)
        case _:
            raise LoadError(f"the configuration {path} has to end in .toml, .json or .yaml")


def prepare(source: ConfigSource) -> None:
    """Import what reading it takes, as who has started us, and before anything of the user's is
    where modules are looked for. Raises LoadError."""
    if isinstance(source, FileConfig):
        _import_for(source.path)


def _import_for(path: str) -> None:
    match _suffix(path):
        case ".toml":
            importlib.import_module("tomllib")
        case ".yaml" | ".yml":
            try:
                importlib.import_module("yaml")
            except ImportError as error:
                problem = f"{path} is YAML, which needs PyYAML: pip install 'sengu[yaml]'"
                raise LoadError(problem) from error
        case _:  # what is there already, or refused
            pass


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _call(name: str) -> object:
    _, function = target.find(name)
    if not callable(function):
        raise LoadError(f"{name} cannot be called; name a function that returns a mapping")
    try:
        return function()
    except Exception as error:  # whatever the user's function raises
        summary = traceback.format_exception_only(error)[-1].strip()
        raise LoadError(f"{name}() failed: {summary}", traceback.format_exc()) from error


def _plain(value: object, where: str) -> Any:
    """A copy made of what JSON knows. Raises LoadError with the path of what it does not."""
    match value:
        case float() if not math.isfinite(value):
            raise LoadError(f"{where} is {value}, which is no number that JSON has; leave it out")
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _plain(one, f"{where}.{key}") for key, one in value.items()}
        case list() | tuple():
            return [_plain(one, f"{where}[{number}]") for number, one in enumerate(value)]
        case _:
            kind = type(value).__name__
            raise LoadError(
                f"{where} is a {kind}, which cannot be handed to workers that run already; use "
                "numbers, text, lists and mappings"
            )


def _where(source: ConfigSource) -> str:
    match source:
        case InlineConfig():
            return "config"
        case FileConfig(path):
            return path
        case CallableConfig(name):
            return f"{name}()"
