"""Where output goes, and what becomes of it there. Looks at files, changes nothing.

Imported by `config.launch`.
"""

import os

from sengu.config.boot import Rotation
from sengu.config.files import check_writable
from sengu.config.programs import check_command, split_log_command
from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.errors import UsageError

_EITHER = f"{common.LOG_ROTATE_SIZE.flag} or {common.LOG_ROTATE_AGE.flag}"


def log_target(values: Values, search_path: str | None) -> str | None:
    """A file's full path, `| command`, or None for standard error. Raises UsageError."""
    given = values[common.LOG_FILE]
    if given is None:
        if values[common.DAEMONIZE]:
            raise UsageError("--daemonize leaves the terminal; add --log-file FILE for the output")
        return None
    words = split_log_command(given)
    if words is not None:
        check_command(words, common.LOG_FILE.flag, search_path, os.getcwd(), before="| ")
        return given.strip()
    path = os.path.abspath(given)
    check_writable("--log-file", path)
    return path


def log_waits(values: Values) -> bool:
    return values[common.LOG_FULL] == "wait"


def rotation_for(values: Values, target: str | None) -> Rotation | None:
    """How the log writer is to write; None when there is no need of one. Raises UsageError."""
    rotates = [one for one in (common.LOG_ROTATE_SIZE, common.LOG_ROTATE_AGE) if values.has(one)]
    idle = [one for one in (common.LOG_KEEP, common.LOG_COMPRESS) if values.has(one)]
    if idle and not rotates:
        raise UsageError(
            f"{idle[0].flag} is about rotated files, and none is rotated; add {_EITHER}"
        )
    is_file = target is not None and not target.startswith("|")
    if rotates and not is_file:
        have = "standard error" if target is None else "a command"
        raise UsageError(
            f"{rotates[0].flag} rotates a file, and output goes to {have}; "
            "name the file with --log-file FILE"
        )
    if rotates and target is not None and os.path.exists(target) and not os.path.isfile(target):
        raise UsageError(
            f"--log-file {target!r} is no file that can be rotated; "
            f"name another, or leave out {rotates[0].flag}"
        )
    if not rotates and not (is_file and log_waits(values)):
        return None
    return Rotation(
        values[common.LOG_ROTATE_SIZE],
        values[common.LOG_ROTATE_AGE],
        values[common.LOG_KEEP],
        values[common.LOG_COMPRESS],
    )
