"""The configuration as workers have it: what it is now, and what of it is about themselves.

Imported by `engine` and `life`.
"""

import types
from collections.abc import Mapping
from typing import Any

import msgspec

from sengu.model.work import WorkOptions
from sengu.posix.swap_file import SwapFile

LOG_LEVEL = "log-level"


def settings_of(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of its values that are settings by their names, with `-` or with `_`."""
    known = frozenset(names)
    return {key: value for key, value in config.items() if key.replace("_", "-") in known}


def log_level(options: WorkOptions, config: Mapping[str, Any]) -> str:
    """What was given on the command line, else what the configuration says."""
    if LOG_LEVEL in options.overrides:
        return options.log_level
    found = settings_of(config, (LOG_LEVEL,)).values()
    return next((str(level) for level in found if level is not None), options.log_level)


class Configuration:
    """Of one process. `current` is read-only, and another one after each change.

    What has come into the `file` has been checked. Without one it stays as it is.
    """

    def __init__(self, file: SwapFile | None, config: Mapping[str, Any]) -> None:
        self._file = file
        self._version = 0
        self.current: Mapping[str, Any] = types.MappingProxyType(config)
        self.renew()

    def renew(self) -> bool:
        """Look for another one; whether there is one."""
        if self._file is None:
            return False
        version, content = self._file.read()
        if version <= self._version:
            return False
        self._version = version
        self.current = types.MappingProxyType(msgspec.json.decode(content))
        return True
